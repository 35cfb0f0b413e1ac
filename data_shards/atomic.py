"""Files that appear whole or not at all: written beside, fsynced, renamed."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["fsync_folder", "is_partial", "whole_file", "write_whole"]

_PARTIAL = re.compile(r"\..+\.partial-\d+")


@contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A path beside `path` to write to; `path` appears when the block ends, and nothing is left when it raises.

    durable: the bytes are on the disk before the name is; False for files that are cheap to make again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield beside
        if durable:
            with beside.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    if durable:
        fsync_folder(path.parent)


def is_partial(name: str) -> bool:
    """Whether a file's name is that of one still being written, or left by a process that was killed."""
    return _PARTIAL.fullmatch(name) is not None


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with whole_file(path) as beside:
        beside.write_bytes(content)


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
