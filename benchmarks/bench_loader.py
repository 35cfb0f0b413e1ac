"""Reading samples from the same shard: Rapt's index and pread against the `webdataset` library, without and with JPEG decode.

python benchmarks/bench_loader.py
"""

import json
import shutil
import tempfile
from itertools import islice
from pathlib import Path

import webdataset

from benchmarks.clips import benchmark_clips
from benchmarks.measure import compare, save
from data_shards.build import build_shards
from data_shards.listing import ENGAGEMENT_LEVELS, Listing
from data_shards.loader import training_batches
from data_shards.order import DrawStream
from data_shards.preprocess import PreprocessConfig
from data_shards.reader import ShardSet, Target
from data_shards.sample import Sample, SampleMeta

NUM_SAMPLES = 64


def main() -> None:
    what, clips = benchmark_clips()
    folder = Path(tempfile.mkdtemp(prefix="rapt-bench-"))
    many = tuple(
        clip.__class__(**{**clip.__dict__, "clip_id": f"{number}-{clip.clip_id}"})
        for number in range(-(-NUM_SAMPLES // len(clips)))
        for clip in clips
    )[:NUM_SAMPLES]
    listing = Listing(dataset="benchmark", label_names={"engagement": ENGAGEMENT_LEVELS}, clips=many)
    try:
        build_shards(listing, folder, preprocess=PreprocessConfig(), clips_per_shard=NUM_SAMPLES, num_workers=1)
        save("loader", _compare(folder, what))
    finally:
        shutil.rmtree(folder)


def _compare(folder: Path, what: str) -> list[dict[str, object]]:
    shards = ShardSet(folder, splits=("train",), target=Target("engagement"))
    url = str(folder / "train-000000.tar")
    stream = DrawStream(shards.view.levels_N, 0, "shuffled", 4)
    shards.read(0)  # the index is read once a run, as webdataset's imports are

    def ours() -> int:
        """Both members of every sample, as bytes, in shuffled order."""
        for index in stream.draws(0, NUM_SAMPLES)[0]:
            shards.read_members(int(index))
        return NUM_SAMPLES

    def theirs() -> int:
        """Both members of every sample, as bytes, in the tar's order."""
        return sum(1 for sample in webdataset.WebDataset(url, shardshuffle=False) if sample["frames.mjpeg"] and sample["json"])

    def ours_decoded() -> int:
        """Batches of tensors, decoded by one thread."""
        batches = training_batches(shards, stream, inputs=("frames",), microbatch=4, rank=0, world_size=1, start=0, num_threads=1)
        return sum(len(batch.clip_ids) for batch in islice(batches, NUM_SAMPLES // 4))

    def theirs_decoded() -> int:
        """The same decoder on webdataset's bytes."""
        done = 0
        for sample in webdataset.WebDataset(url, shardshuffle=False):
            meta = SampleMeta.model_validate(json.loads(sample["json"]))
            Sample(meta=meta, frames_mjpeg=sample["frames.mjpeg"]).decode_frames()
            done += 1
        return done

    title = f"of one shard of {NUM_SAMPLES} samples ({what}; 50 frames of 224x224)"
    return [
        compare(f"Samples {title}, as bytes", ("rapt", ours), ("webdataset", theirs), unit="samples", rounds=15),
        compare(f"Samples {title}, decoded", ("rapt", ours_decoded), ("webdataset", theirs_decoded), unit="samples"),
    ]


if __name__ == "__main__":
    main()
