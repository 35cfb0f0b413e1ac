"""One clip through all extractors that are asked for: one pass over its pictures, shared by all that look at any."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from data_shards.decode import DecodeLimits, part_centres_s
from data_shards.decode_stream import FrameStream, Portion, StreamInfo
from data_shards.errors import ClipError, ConfigError, RaptError
from data_shards.extraction.contract import ClipMaterial, Extractor, Reading
from data_shards.features import Floats, checked
from data_shards.listing import ListedClip
from data_shards.worker_pool import one_torch_thread

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
    with one_torch_thread():
        return _extracted(clip, extractors, limits)


def _extracted(clip: ClipMaterial, extractors: Mapping[str, Extractor], limits: DecodeLimits | None) -> Extracted:
    found = Extracted()
    stream = _opened(clip, [name for name, extractor in extractors.items() if extractor.fps is not None], limits, found)
    found = replace(found, video=stream.info if stream else None)
    readings: dict[str, Reading] = {}
    for name, extractor in extractors.items():
        if name in found.lacking:
            continue
        with _reason_kept([name], found):
            readings[name] = extractor.read(clip, found.video)
    if stream is not None:
        _show(stream, {name: (readings[name], extractors[name].fps) for name in readings}, found)
    for name, reading in readings.items():
        if name in found.lacking:
            continue
        with _reason_kept([name], found):
            values = reading.finish()
            if values is None:
                found.lacking[name] = reading.lacking
            else:
                found.features[name] = checked(values, f"{clip.name}: its feature '{name}'")
    return found


class _Shown(NamedTuple):
    """numbers_N, not falling, of the frames that a reading is shown, and at what times_N, in seconds from the clip's start."""

    numbers_N: npt.NDArray[np.int64]
    times_N: npt.NDArray[np.float64]

    @classmethod
    def at_rate(cls, stream: FrameStream, fps: float) -> Self:
        numbers_N = stream.at_rate(fps)
        return cls(numbers_N, part_centres_s(len(numbers_N), stream.info.duration_s))


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
            unclear=clip.unclear,
        )


def _opened(clip: ClipMaterial, wanted: Sequence[str], limits: DecodeLimits | None, found: Extracted) -> FrameStream | None:
    """The clip's pictures, where any of the features wanted needs them; None, and their lack in `found`, where there are none."""
    if not wanted:
        return None
    if clip.video is None:
        found.lacking.update(dict.fromkeys(wanted, "no video"))
        return None
    with _reason_kept(wanted, found, what="pictures"):
        return FrameStream(clip.video, limits)
    return None


def _show(stream: FrameStream, readings: Mapping[str, tuple[Reading, float | None]], found: Extracted) -> None:
    """Hand each reading its frames, at times that are even; what all want is decoded once."""
    wanted = {name: _Shown.at_rate(stream, fps) for name, (_, fps) in readings.items() if fps is not None}
    if not wanted:
        return
    numbers_N = np.unique(np.concatenate([shown.numbers_N for shown in wanted.values()]))
    with _reason_kept(list(wanted), found, what="pictures"):
        for portion in stream.portions(numbers_N):
            for name, shown in wanted.items():
                if name not in found.lacking:
                    with _reason_kept([name], found):
                        _show_portion(portion, readings[name][0], shown)


def _show_portion(portion: Portion, reading: Reading, shown: _Shown) -> None:
    """What the reading wants of a portion, a frame as often as it is on screen."""
    begin = int(np.searchsorted(shown.numbers_N, portion.numbers_N[0], side="left"))
    end = int(np.searchsorted(shown.numbers_N, portion.numbers_N[-1], side="right"))
    at_once = len(portion.numbers_N)  # a frame may stay for minutes, and copies of it are as large as others
    for at in range(begin, end, at_once):
        part = slice(at, min(at + at_once, end))
        places_N = np.searchsorted(portion.numbers_N, shown.numbers_N[part])
        reading.see(portion.frames_NHWC[places_N], shown.times_N[part])


@contextmanager
def _reason_kept(names: Sequence[str], found: Extracted, what: str = "") -> Iterator[None]:
    """An error of the clip in the block becomes the reason why it lacks the features, and one that nobody foresaw too: one
    clip must not end an extraction of many. what: what the block makes of the clip, the feature itself unless given."""
    try:
        yield
    except ClipError as error:
        found.lacking.update(dict.fromkeys(names, str(error)))
    except (RaptError, OSError, MemoryError):  # not of the clip
        raise
    except Exception as error:
        if _is_of_memory(error):
            raise ConfigError(
                f"{', '.join(names)}: the memory does not hold what it computes ({str(error)[:120]}); use fewer --workers, or a "
                "smaller --set of what goes through at once"
            ) from None
        said = f"({type(error).__name__}: {str(error)[:120]})"
        found.lacking.update({name: f"{what or name} cannot be made of it {said}" for name in names})


def _is_of_memory(error: Exception) -> bool:
    """Whether it is torch's way to say that a device's or this machine's memory is full."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
