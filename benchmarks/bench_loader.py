"""Reading samples of one shard: Rapt's index and memory map against the `webdataset` library, without and with JPEG decode.

Aims: 10 times webdataset as bytes; 0.9 of a bare loop over the same JPEG decoder. All on one core.

    python -m benchmarks.bench_loader
"""

import io
import json
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from benchmarks.clips import benchmark_clips, repeated
from benchmarks.measure import compare, save
from benchmarks.worker import one_core
from data_shards.building.build import build_shards
from data_shards.listing import ENGAGEMENT_LEVELS, Listing
from data_shards.preprocess import PreprocessConfig
from data_shards.reading.loader import read_in_order
from data_shards.reading.order import DrawStream
from data_shards.reading.reader import ShardSet, Target
from data_shards.sample import Sample, SampleMeta

NUM_SAMPLES = 64
CONFIGS = (PreprocessConfig(), PreprocessConfig(num_frames=16, size_px=64))  # the papers', and the demo's


def main() -> None:
    what, clips = benchmark_clips()
    listing = Listing(
        dataset="benchmark", label_names={"engagement": ENGAGEMENT_LEVELS}, clips=tuple(repeated(clips, NUM_SAMPLES))
    )
    results = []
    for config in CONFIGS:
        with tempfile.TemporaryDirectory(prefix="rapt-bench-") as folder:
            build_shards(listing, folder, preprocess=config, clips_per_shard=NUM_SAMPLES, num_workers=1)
            tar = Path(folder) / "train-000000.tar"
            frames = f"{config.num_frames} frames of {config.size_px}x{config.size_px}"
            title = f"Samples of {tar.stat().st_size / NUM_SAMPLES / 1e3:,.0f} kB ({what}; {frames})"
            results += _compare(title, Path(folder), str(tar))
    save("loader", results)


def _compare(title: str, folder: Path, tar: str) -> list[dict[str, object]]:
    one_core()
    shards = ShardSet(folder, splits=("train",), target=Target("engagement"))
    stream = DrawStream(shards.view.levels_N, 0, "shuffled", 4)
    in_memory = [shards.read(number) for number in range(NUM_SAMPLES)]  # the index is read once a run, as imports are

    def ours() -> int:
        """Both members of every sample, as bytes, in shuffled order."""
        for number in stream.draws(0, NUM_SAMPLES)[0].tolist():
            shards.read_members(number)
        return NUM_SAMPLES

    def theirs() -> int:
        """Both members of every sample, as bytes, in the tar's order."""
        return sum(1 for sample in webdataset.WebDataset(tar, shardshuffle=False) if sample["frames.mjpeg"] and sample["json"])

    def ours_decoded() -> int:
        """Batches of tensors, each sample once, read from the shard and decoded by one thread."""
        return sum(len(batch.clip_ids) for batch in read_in_order(shards, inputs=("frames",), batch=4))

    def bare_decoder() -> int:
        """Pillow on JPEGs that are in memory already, into arrays that nobody gathers."""
        for sample in in_memory:
            for begin, end in pairwise(sample.meta.jpeg_offsets):
                np.asarray(Image.open(io.BytesIO(sample.frames_mjpeg[begin:end])))
        return NUM_SAMPLES

    def theirs_decoded() -> int:
        """The same decoder on webdataset's bytes, sample by sample."""
        done = 0
        for sample in webdataset.WebDataset(tar, shardshuffle=False):
            meta = SampleMeta.model_validate(json.loads(sample["json"]))
            Sample(meta=meta, frames_mjpeg=sample["frames.mjpeg"]).decode_frames()
            done += 1
        return done

    results = [
        compare(f"{title}, as bytes", ("rapt", ours), ("webdataset", theirs), unit="samples", rounds=31),
        compare(f"{title}, decoded", ("rapt", ours_decoded), ("bare JPEG loop", bare_decoder), unit="samples", rounds=15),
        compare(f"{title}, decoded", ("rapt", ours_decoded), ("webdataset", theirs_decoded), unit="samples", rounds=15),
    ]
    shards.close()
    return results


if __name__ == "__main__":
    main()
