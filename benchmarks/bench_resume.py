"""100,000 small samples: how long until the first batch of an epoch, and until the first after resuming in its middle?

Aim: under 1 s each after the manifest is read (here its reading is counted too). A sample is an array of 8 x 4 numbers and a
JSON record, in 100 shards. webdataset, litdata and mosaicml-streaming read the same samples; see bench_peers for what each does.

    python -m benchmarks.bench_resume
"""

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_peers import print_all, read_by_all
from benchmarks.measure import save
from data_shards.building.build import build_shards
from data_shards.listing import ENGAGEMENT_LEVELS, ListedClip, Listing
from data_shards.manifest import ShardIndex, index_name
from data_shards.preprocess import PreprocessConfig
from data_shards.storage.store import open_store

NUM_SHARDS, SAMPLES_A_SHARD, ROUNDS = 100, 1_000, 3
NUM_SAMPLES = NUM_SHARDS * SAMPLES_A_SHARD
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "first batch, ms": ("first_batch", {"decode": False, "start": 0}),
    "resume in the middle, ms": ("first_batch", {"decode": False, "start": NUM_SAMPLES // 2}),
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as scratch:
        shards = Path(scratch) / "rapt"
        _write_small_samples(shards)
        answers = read_by_all(shards, Path(scratch), num_samples=NUM_SAMPLES, asked=ASKED, rounds=ROUNDS)
    print_all(
        f"{NUM_SAMPLES:,} samples of 1 kB in {NUM_SHARDS} shards, batches of 8, from opening the set", answers, rounds=ROUNDS
    )
    save("resume", [{"title": f"{NUM_SAMPLES} small samples", "answers": answers}])


def _write_small_samples(folder: Path) -> None:
    """Build one shard, and put it under the names of all the others, with indexes and a manifest to match."""
    rng = np.random.default_rng(0)
    clips = tuple(
        ListedClip(
            clip_id=f"clip-{number:06d}",
            subject=f"person-{number % 50:02d}",
            split="train",
            labels={"engagement": number % 4},
            features={"openface": rng.standard_normal((8, 4)).astype(np.float32)},
        )
        for number in range(SAMPLES_A_SHARD)
    )
    listing = Listing(
        dataset="benchmark", label_names={"engagement": ENGAGEMENT_LEVELS}, clips=clips, extractors={"openface": {"numpy": "1"}}
    )
    one = build_shards(listing, folder, preprocess=PreprocessConfig(), clips_per_shard=SAMPLES_A_SHARD)
    (entry,), store = one.shards, open_store(folder)
    index = ShardIndex.from_bytes(store.read(index_name(entry.name)), origin=entry.name)
    entries = [entry]
    for number in range(1, NUM_SHARDS):
        name = f"train-{number:06d}.tar"
        content = index.model_copy(update={"shard": name}).to_bytes()
        shutil.copyfile(folder / entry.name, folder / name)
        (folder / index_name(name)).write_bytes(content)
        entries.append(entry.model_copy(update={"name": name, "index_sha256": hashlib.sha256(content).hexdigest()}))
    summary = one.splits["train"]
    histogram = {name: tuple(count * NUM_SHARDS for count in counts) for name, counts in summary.label_histogram.items()}
    summary = summary.model_copy(update={"num_samples": NUM_SAMPLES, "label_histogram": histogram})
    store.write("manifest.json", one.model_copy(update={"splits": {"train": summary}, "shards": tuple(entries)}).to_bytes())


if __name__ == "__main__":
    main()
