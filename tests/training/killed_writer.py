"""A writer of checkpoints that is killed with SIGKILL at one of its file-system calls, again and again; run as a program.

    python -m tests.training.killed_writer FOLDER TRIALS

Each trial is a process of its own, forked after the imports, that writes steps 2 to 5 after a good step 1. Prints a JSON
line a trial: at which call it was killed, which steps were told as saved before, and which step was then found good.
"""

import builtins
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from data_shards.storage.store import LocalStore
from training import checkpoint
from training.checkpoint import CheckpointRecord, Checkpoints, read_state, read_weights
from training.checkpoint_writer import CheckpointWriter
from training.events import CheckpointSaved

CALLS = ("mkdir", "open", "fsync", "replace", "unlink", "rmdir")
LAST = 5


def record(step: int) -> CheckpointRecord:
    return CheckpointRecord(
        step=step, position=8 * step, data_digest="d", run={}, best_epoch=step, best_metric=0.5, loss_sum=1.0, loss_count=1
    )


def state(step: int) -> dict[str, Any]:
    return {"engine": {"w": torch.full((500,), float(step))}}


def weights(step: int) -> dict[str, torch.Tensor]:
    return {"w": torch.full((300,), float(-step))}


def checkpoints(folder: Path) -> Checkpoints:
    return Checkpoints(LocalStore(folder / "checkpoints"), kept=2, scratch=folder / "scratch")


def kill_at(number: int) -> list[int]:
    """Have this process killed just before its `number`-th call, or in the middle of it where it is a write; counts calls."""
    count = [0]

    def counted(real: Callable[..., Any], *, half: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            count[0] += 1
            if count[0] == number:
                if half:
                    file, content = arguments
                    file._file.write(bytes(content)[: len(bytes(content)) // 2])
                    file._file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name), half=False))
    builtins.open = counted(builtins.open, half=False)
    checkpoint._HashingFile.write = counted(checkpoint._HashingFile.write, half=True)  # type: ignore[method-assign]
    return count


def write_all(folder: Path, told: int) -> None:
    """What a run does: the real writer, one step after another; every step that is there is told to the pipe."""
    ours = checkpoints(folder)
    ours.find()
    ours.clean()
    writer = CheckpointWriter(ours)
    for step in range(2, LAST + 1):
        writer.submit(record(step), state(step), weights(step), due_s=time.perf_counter())
        while not (news := writer.news()):
            time.sleep(0.0005)
        assert isinstance(news[0], CheckpointSaved)
        os.write(told, bytes([step]))


def trial(folder: Path, number: int) -> dict[str, Any]:
    checkpoints(folder).save(record(1), state(1), weights(1))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = kill_at(number)
        write_all(folder, writing)
        os.write(writing, bytes([100]))
        os.write(writing, count[0].to_bytes(4, "little"))
        os._exit(0)
    os.close(writing)
    status = os.waitpid(child, 0)[1]
    said = os.read(reading, 100)
    os.close(reading)
    found = (after := checkpoints(folder)).find()
    assert found.record is not None
    assert found.state is not None
    assert found.best is not None
    step = found.record.step
    equal = torch.equal(read_state(found.state)["engine"]["w"], state(step)["engine"]["w"])
    equal = equal and torch.equal(read_weights(found.best)["w"], weights(step)["w"])
    after.clean()
    left = [path.name for path in (folder / "checkpoints").rglob(".*")]
    after.save(record(step + 1), state(step + 1), weights(step + 1))
    again = checkpoints(folder).find()
    return {
        "call": number,
        "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
        "told": [step for step in said if step <= LAST] if 100 not in said else list(range(2, LAST + 1)),
        "calls": int.from_bytes(said[said.index(100) + 1 :], "little") if 100 in said else 0,
        "found": step,
        "equal": equal,
        "left": left,
        "next": again.record.step if again.record else None,
        "skipped": again.skipped,
    }


def main() -> None:
    torch.set_num_threads(1)
    folder, trials = Path(sys.argv[1]), int(sys.argv[2])
    num_calls = trial(folder / "whole", 0)["calls"]
    for index in range(trials):
        print(json.dumps(trial(folder / str(index), 1 + index * num_calls // trials) | {"calls": num_calls}))


if __name__ == "__main__":
    main()
