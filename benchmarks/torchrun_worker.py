"""What torchrun starts for bench_ray: the same run_worker as under Ray Train, its steps' times to a file.

python -m torch.distributed.run --nproc-per-node 2 -m benchmarks.torchrun_worker SCRATCH RUN_ID SETTING...
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.tiny_job import tiny_job
from cluster.job import run_worker, save_job
from training.world import World


def main() -> None:
    scratch, run_id, *settings = sys.argv[1:]
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"])))
    dist.init_process_group("gloo")
    world = World(dist.get_rank(), dist.get_world_size())
    job = tiny_job(Path(scratch), run_id, settings=tuple(settings))
    if world.is_first:
        save_job(job)
    run_worker(job, world=world, device=torch.device("cpu"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
