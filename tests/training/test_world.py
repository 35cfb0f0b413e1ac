"""What workers say to each other, also where one of them fails."""

from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
import torch.multiprocessing

from data_shards.errors import ModelError
from training.world import World


def _ask(rank: int, folder: str) -> None:
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    world = World(rank, 2)
    said = [str(world.from_first(lambda: rank + 7))]
    for fault in (ModelError("a sentence"), PermissionError(13, "Permission denied")):

        def fail(fault: Exception = fault) -> int:
            raise fault

        try:
            world.from_first(fail)
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    world.barrier()  # nobody waits for an answer that never comes
    Path(folder, str(rank)).write_text("\n".join(said))
    dist.destroy_process_group()


def test_what_the_first_worker_cannot_make_is_told_to_all(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_ask, (str(tmp_path),), nprocs=2)
    first, other = ((tmp_path / name).read_text().splitlines() for name in "01")
    assert first == ["7", "ModelError: a sentence", "PermissionError: [Errno 13] Permission denied"]
    assert other == [*first[:2], f"RuntimeError: the first worker failed ({first[2]})"]
