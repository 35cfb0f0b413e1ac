"""A decoder: one clip at a time, and a request that is cancelled takes its work with it."""

import asyncio
import contextlib
from pathlib import Path

import psutil
import pytest

from data_shards.errors import ClipError, ServiceError
from data_shards.extraction.clip_sample import ClipRecipe
from data_shards.preprocess import PreprocessConfig
from serving.replicas.decode_replica import DecodeReplica
from serving.scoring import Deadline

LONG = ClipRecipe(PreprocessConfig(num_frames=400, size_px=512))
SHORT = ClipRecipe(PreprocessConfig(num_frames=4, size_px=32))


def children() -> set[int]:
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is none either
            if "decode_worker" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def test_a_cancelled_clip_kills_its_child_and_the_next_is_decoded(real_data: Path) -> None:
    clip = (real_data / "videos" / "crowd_1080p.mp4").read_bytes()
    before = children()

    async def ask() -> None:
        replica = DecodeReplica()
        await replica.prepare(LONG)
        (child,) = children() - before
        under_way = asyncio.create_task(replica.decode(clip, None, LONG, Deadline.within(60)))
        waiting = asyncio.create_task(replica.decode(clip, None, LONG, Deadline.within(60)))
        await asyncio.sleep(0.3)
        for each in (waiting, under_way):
            each.cancel()
        for each in (waiting, under_way):
            with pytest.raises(asyncio.CancelledError):
                await each
        sample = await replica.decode(clip, None, SHORT, Deadline.within(60))
        assert child not in children()
        assert len(sample.sample.meta.frame_times_s) == 4
        await replica.prepare(LONG)  # a new child
        replica.close()

    asyncio.run(ask())
    assert children() == before


def test_a_clip_whose_time_is_over_is_not_begun_and_a_damaged_one_is_named(simulated_folder: Path) -> None:
    clip = next((simulated_folder / "clips").iterdir()).read_bytes()

    async def ask() -> None:
        replica = DecodeReplica()
        with pytest.raises(ServiceError, match="time is over"):
            await replica.decode(clip, None, SHORT, Deadline.within(-1))
        with pytest.raises(ClipError, match="not a video container"):
            await replica.decode(b"junk", None, SHORT, Deadline.within(60))
        assert (await replica.decode(clip, None, SHORT, Deadline.within(60))).sample.has_frames
        replica.close()

    asyncio.run(ask())
