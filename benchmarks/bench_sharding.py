"""Sharding against a bare decord loop over the same files, both on one core. Aim: at least 0.9.

python benchmarks/bench_sharding.py
"""

import shutil
import tempfile
from pathlib import Path

import decord

from benchmarks.clips import benchmark_clips
from benchmarks.measure import compare, save
from data_shards.preprocess import PreprocessConfig
from data_shards.shard_writer import ShardPlan, write_shard
from data_shards.store import open_store


def main() -> None:
    what, clips = benchmark_clips()
    config = PreprocessConfig()
    folder = Path(tempfile.mkdtemp(prefix="rapt-bench-"))
    store = open_store(folder)
    plan = ShardPlan(name="train-000000.tar", split="train", clips=tuple(clips), preprocess=config)

    def sharding() -> int:
        """Decode, scale, JPEG-encode, checksum, write the tar and its index, fsync."""
        return len(write_shard(store, plan, on_clip=lambda clip_id: None).samples)

    def bare_decord() -> int:
        """Open and take the same 50 frames at full size, nothing else."""
        for clip in clips:
            reader = decord.VideoReader(str(Path(clip.video.uri) / clip.video.name), num_threads=1)
            picked = [int((i + 0.5) * len(reader) / config.num_frames) for i in range(config.num_frames)]
            reader.get_batch(picked).asnumpy()
        return len(clips)

    try:
        result = compare(f"Sharding: {what}", ("rapt", sharding), ("bare decord loop", bare_decord), unit="clips")
    finally:
        shutil.rmtree(folder)
    save("sharding", [result])


if __name__ == "__main__":
    main()
