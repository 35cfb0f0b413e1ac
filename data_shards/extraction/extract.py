"""One clip through all extractors that are asked for: one pass over its pictures, shared by all that look at any."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np

from data_shards.decode import DecodeLimits
from data_shards.decode_stream import FrameStream, StreamInfo
from data_shards.errors import ClipError, RaptError
from data_shards.extraction.contract import ClipMaterial, Extractor, Reading
from data_shards.features import Floats, checked
from data_shards.listing import ListedClip

__all__ = ["Extracted", "extract_features", "material_of"]


@dataclass(frozen=True)
class Extracted:
    """features: name to float32 array; lacking: name to why the clip has none; video: what is known of its
    pictures, None where no extractor looked at any."""

    features: dict[str, Floats] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)
    video: StreamInfo | None = None


def extract_features(clip: ClipMaterial, extractors: Mapping[str, Extractor], limits: DecodeLimits | None = None) -> Extracted:
    """Every feature that `extractors` make of the clip. What one of them cannot use is its own lack, and no other's.

    Deterministic: an extractor sees the same frames whichever others run beside it, and sums have the order of one thread.
    """
    with _one_thread():
        return _extracted(clip, extractors, limits)


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch adds up in another order with another number of threads; clips are many, and fill the cores as processes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _extracted(clip: ClipMaterial, extractors: Mapping[str, Extractor], limits: DecodeLimits | None) -> Extracted:
    looked_at = any(extractor.fps is not None for extractor in extractors.values())
    stream, no_pictures = _opened(clip, limits) if looked_at else (None, "")
    found = Extracted(video=stream.info if stream else None)
    readings: dict[str, Reading] = {}
    for name, extractor in extractors.items():
        if extractor.fps is not None and stream is None:
            found.lacking[name] = no_pictures
            continue
        with _reason_kept(name, found):
            readings[name] = extractor.read(clip, found.video)
    if stream is not None:
        _show(stream, {name: (readings[name], extractors[name].fps) for name in readings}, found)
    for name, reading in readings.items():
        if name in found.lacking:
            continue
        with _reason_kept(name, found):
            values = reading.finish()
            if values is None:
                found.lacking[name] = reading.lacking
            else:
                found.features[name] = checked(values, f"{clip.name}: its feature '{name}'")
    return found


@contextmanager
def material_of(clip: ListedClip) -> Iterator[ClipMaterial]:
    """A listed clip's files on this machine while the block lasts."""
    with ExitStack() as stack:
        local = {name: stack.enter_context(file.local()) for name, file in clip.files.items()}
        yield ClipMaterial(
            name=clip.source_name,
            video=local.get("video"),
            transcript=local.get("transcript"),
            text=clip.extra.get("text", ""),
            openface_csv=local.get("openface_csv"),
        )


def _opened(clip: ClipMaterial, limits: DecodeLimits | None) -> tuple[FrameStream | None, str]:
    """(the clip's pictures, why there are none)."""
    if clip.video is None:
        return None, "no video"
    try:
        return FrameStream(clip.video, limits), ""
    except ClipError as error:
        return None, str(error)


def _show(stream: FrameStream, readings: Mapping[str, tuple[Reading, float | None]], found: Extracted) -> None:
    """Hand each reading its frames; what all want is decoded once."""
    wanted = {name: stream.at_rate(fps) for name, (_, fps) in readings.items() if fps is not None}
    if not wanted:
        return
    numbers_N = np.unique(np.concatenate(list(wanted.values())))
    try:
        for portion in stream.portions(numbers_N):
            for name, own_N in wanted.items():
                seen_N = np.isin(portion.numbers_N, own_N)
                if name not in found.lacking and seen_N.any():
                    with _reason_kept(name, found):
                        readings[name][0].see(portion.frames_NHWC[seen_N], portion.times_N[seen_N])
    except ClipError as error:
        found.lacking.update(dict.fromkeys(wanted, str(error)))


@contextmanager
def _reason_kept(name: str, found: Extracted) -> Iterator[None]:
    """An error of the clip in the block becomes the reason why it lacks the feature, and one that nobody foresaw too: one
    clip must not end an extraction of many."""
    try:
        yield
    except ClipError as error:
        found.lacking[name] = str(error)
    except (RaptError, OSError, MemoryError):  # not of the clip
        raise
    except Exception as error:
        found.lacking[name] = f"{name} cannot be made of it ({type(error).__name__}: {str(error)[:120]})"
