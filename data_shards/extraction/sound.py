"""A clip's sound as one channel of samples, by PyAV: no external program. Letters: S samples."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["SAMPLE_RATE_HZ", "Sound", "read_sound"]

SAMPLE_RATE_HZ = 16_000
_MAX_S = 3 * 3600


@dataclass(frozen=True)
class Sound:
    """samples_S float32 in [-1, 1], all channels mixed, at rate_hz."""

    samples_S: npt.NDArray[np.float32]
    rate_hz: int = SAMPLE_RATE_HZ


def read_sound(path: Path) -> Sound | None:
    """The sound of a clip at 16 kHz, None where it has no sound track. ClipError where it is damaged or too long."""
    raise NotImplementedError(path)
