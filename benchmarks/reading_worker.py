"""A process that reads one set of samples in the way of one library: Rapt, webdataset, litdata or mosaicml-streaming.

Started by bench_peers and bench_resume. Every library gives batches of 8 in its own shuffled order, with no worker processes:
as bytes (the members as they are stored) or decoded (the JPEGs by the same code, stacked to one uint8 tensor).
"""

import tarfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.worker import answer

BATCH = 8
Batches = Iterator[Any]


def write(library: str, folder: str, out: str) -> None:
    """Write the samples of Rapt's tars in the library's own format. webdataset and Rapt read the tars themselves."""
    if library == "streaming":
        from benchmarks.torchvision_stub import importable_torchvision

        importable_torchvision()
        from streaming import MDSWriter

        with MDSWriter(out=out, columns={"json": "bytes", "data": "bytes"}) as writer:
            for tar in _tars(folder):
                for sample in samples_of(tar):
                    writer.write(sample)
    elif library == "litdata":
        import litdata

        litdata.optimize(fn=samples_of, inputs=_tars(folder), output_dir=out, chunk_bytes="64MB", num_workers=1)


def samples_of(tar: str) -> Iterator[dict[str, bytes]]:
    """A tar's samples: `json`, and the other member as `data`."""
    sample: dict[str, bytes] = {}
    with tarfile.open(tar, mode="r:") as members:
        for member in members:
            content = members.extractfile(member)
            assert content is not None
            sample["json" if member.name.endswith(".json") else "data"] = content.read()
            if len(sample) == 2:
                yield sample
                sample = {}


def rate(library: str, folder: str, decode: bool, num_samples: int) -> float:
    """Samples a second over the first epoch, the first batch included."""
    begun_s = time.perf_counter()
    read = sum(BATCH for _ in islice(_LIBRARIES[library](folder, decode, 0, num_samples), num_samples // BATCH))
    return read / (time.perf_counter() - begun_s)


def first_batch(library: str, folder: str, decode: bool, start: int, num_samples: int) -> float:
    """Seconds from opening the set to the batch at `start` of an epoch; what was read before in this process is not kept."""
    state = _state(library, folder, start, num_samples) if start else 0
    begun_s = time.perf_counter()
    next(_LIBRARIES[library](folder, decode, state, num_samples))
    return time.perf_counter() - begun_s


def _rapt(folder: str, decode: bool, start: int, num_samples: int) -> Batches:
    from data_shards.manifest import read_manifest
    from data_shards.reading.loader import training_batches
    from data_shards.reading.order import DrawStream
    from data_shards.reading.reader import ShardSet, Target

    shards = ShardSet(folder, splits=("train",), target=Target("engagement"), manifest=read_manifest(folder))
    stream = DrawStream(shards.view.levels_N, 0, "shuffled", BATCH)
    if decode:
        yield from training_batches(
            shards, stream, inputs=("frames",), microbatch=BATCH, rank=0, world_size=1, start=start, num_threads=1
        )
    while True:
        yield [shards.read_members(number) for number in stream.draws(start, BATCH)[0].tolist()]
        start += BATCH


def _webdataset(folder: str, decode: bool, start: int, num_samples: int) -> Batches:
    """It keeps no position: to resume, what was seen is read again and skipped, decoding left out."""
    import webdataset

    samples = webdataset.WebDataset(_tars(folder), shardshuffle=100, seed=0).shuffle(1000, seed=0)
    kept = (({"json": s["json"], "data": _other(s)}) for s in islice(samples, start, None))
    return _batched(_decoded(sample) if decode else sample for sample in kept)


def _other(sample: dict[str, Any]) -> bytes:
    """The member that is not the JSON."""
    return bytes(next(value for name, value in sample.items() if name != "json" and not name.startswith("__")))


def _litdata(folder: str, decode: bool, state: Any, num_samples: int) -> Batches:
    loader = _litdata_loader(folder, decode)
    if state:
        loader.load_state_dict(state)
    return iter(loader)


def _litdata_loader(folder: str, decode: bool) -> Any:
    import litdata

    dataset = litdata.StreamingDataset(folder, shuffle=True, drop_last=True, seed=0, transform=_decoded if decode else None)
    return litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0, collate_fn=_stacked)


def _streaming(folder: str, decode: bool, state: Any, num_samples: int) -> Batches:
    loader = _streaming_loader(folder, decode)
    if state:
        loader.load_state_dict(state)
    return iter(loader)


def _streaming_loader(folder: str, decode: bool) -> Any:
    from benchmarks.torchvision_stub import importable_torchvision

    importable_torchvision()
    from streaming import StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    class Decoding(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Any:
            sample = super().__getitem__(at)
            return _decoded(sample) if decode else sample

    clean_stale_shared_memory()
    dataset = Decoding(local=folder, shuffle=True, batch_size=BATCH)
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0, collate_fn=_stacked)


def _state(library: str, folder: str, start: int, num_samples: int) -> Any:
    """What the library needs to resume at sample `start`: the state of its own loader there, or the number itself."""
    if library not in ("litdata", "streaming"):
        return start
    loader = _litdata_loader(folder, False) if library == "litdata" else _streaming_loader(folder, False)
    batches = iter(loader)
    for _ in range(start // BATCH):
        next(batches)
    return loader.state_dict()


def _batched(samples: Iterator[Any]) -> Batches:
    while batch := list(islice(samples, BATCH)):
        yield _stacked(batch)


def _decoded(sample: dict[str, bytes]) -> Any:
    from data_shards.sample import Sample

    members = {"json": bytes(sample["json"]), "frames.mjpeg": sample["data"]}  # litdata gives views
    return Sample.from_members(members, origin="sample").decode_frames()


def _stacked(batch: list[Any]) -> Any:
    import numpy as np
    import torch

    if isinstance(batch[0], dict):  # litdata gives views: what was asked for is bytes
        return [{name: bytes(member) for name, member in sample.items()} for sample in batch]
    return torch.from_numpy(np.stack(batch))


def _tars(folder: str) -> list[str]:
    return [str(path) for path in sorted(Path(folder).glob("*.tar"))]


_LIBRARIES: dict[str, Callable[[str, bool, Any, int], Batches]] = {
    "rapt": _rapt,
    "webdataset": _webdataset,
    "litdata": _litdata,
    "streaming": _streaming,
}

if __name__ == "__main__":
    answer({"write": write, "rate": rate, "first_batch": first_batch})
