"""A worker for tests of faults: all-reduces as a training step does, watched, and prints what it says and sees.

python waiting_worker.py RANK SIZE HOST PORT FOLDER TIMEOUT_S CLOCK_JUMP_S; the first worker listens on HOST:PORT.
"""

import socket
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from training.watchdog import Watchdog
from training.world import World


def main() -> None:
    rank, size, host, port, folder, timeout_s, jump_s = sys.argv[1:]
    world, timeout = World(int(rank), int(size)), timedelta(seconds=float(timeout_s))
    if float(jump_s):
        wall = time.time
        began_s = time.monotonic()
        time.time = lambda: wall() + (float(jump_s) if time.monotonic() > began_s + 1 else 0.0)
    listener = socket.create_server((host, int(port))) if world.is_first else None
    descriptor = listener.detach() if listener else None
    store = dist.TCPStore(host, int(port), world.size, is_master=world.is_first, timeout=timeout, master_listen_fd=descriptor)
    dist.init_process_group("gloo", store=store, rank=world.rank, world_size=world.size, timeout=timeout)
    watchdog = Watchdog(
        world.rank,
        world.size,
        store,
        Path(folder) / "hangs",
        hang_after_s=2.5,
        timeout_s=float(timeout_s),
        tell=lambda sentence: print("hang:", sentence, flush=True),
        tick_s=0.2,
    )
    begun_s = time.monotonic()
    try:
        for step in range(1, 100_000):
            watchdog("forward", step)
            time.sleep(0.02)
            watchdog("update", step)
            world.mean(torch.ones(()))
            if step % 10 == 0:
                begun_s = time.monotonic()
                print("step", step, flush=True)
            if float(jump_s) and step == 120:
                break
    except RuntimeError as error:
        print(f"failed after {time.monotonic() - begun_s:.1f} s:", str(error).splitlines()[0], flush=True)
    watchdog.close()


if __name__ == "__main__":
    main()
