"""The clip's sound: a quiet room, and a voiced signal wherever the person speaks.

Letters: S samples of the clip.
"""

import numpy as np
import numpy.typing as npt

from data_shards.simulation.person import Person
from data_shards.simulation.track import BehaviourTrack

SAMPLE_RATE_HZ = 16_000

# Formants of a neutral vowel: centre and bandwidth in Hz, relative level.
_FORMANTS = ((550.0, 160.0, 1.0), (1500.0, 260.0, 0.5), (2500.0, 380.0, 0.25))
_MAX_HARMONIC_HZ = 3600.0
_VOICE_LEVEL = 0.16
_ROOM_LEVEL = 0.0025


def synthesise_sound(person: Person, track: BehaviourTrack, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Mono sound at 16 kHz for the length of a track: int16 (S).

    The voice is harmonics of the person's pitch under three formants; its loudness follows the mouth, so
    that sound and lips agree.
    """
    num_samples = round(track.num_frames / track.fps * SAMPLE_RATE_HZ)
    sound_S = _ROOM_LEVEL * _soft_noise(num_samples, rng)
    frame_S = np.arange(num_samples) * (track.fps / SAMPLE_RATE_HZ)
    spoken = np.flatnonzero(np.interp(frame_S, np.arange(track.num_frames), track.speaking_T.astype(np.float64)) > 0.0)
    if len(spoken):
        opening = np.interp(frame_S[spoken], np.arange(track.num_frames), track.mouth_T * track.speaking_T)
        sound_S[spoken] += _VOICE_LEVEL * opening * _voice(person.f0_hz, len(spoken), rng)
    return np.round(32767.0 * np.clip(sound_S, -1.0, 1.0)).astype(np.int16)


def _voice(f0_hz: float, num_samples: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A steady vowel with wandering pitch, about unit level."""
    time_s_S = np.arange(num_samples) / SAMPLE_RATE_HZ
    melody_S = 0.08 * np.sin(2 * np.pi * (0.6 * time_s_S + rng.random())) + 0.02 * np.sin(2 * np.pi * 5.0 * time_s_S)
    phase_S = 2 * np.pi * np.cumsum(f0_hz * (1.0 + melody_S)) / SAMPLE_RATE_HZ
    voice_S = np.zeros(num_samples)
    for harmonic in range(1, int(_MAX_HARMONIC_HZ / f0_hz) + 1):
        rate_hz = harmonic * f0_hz
        level = sum(gain / (1.0 + ((rate_hz - centre_hz) / width_hz) ** 2) for centre_hz, width_hz, gain in _FORMANTS)
        voice_S += level * np.sin(harmonic * phase_S)
    return voice_S / max(1e-9, float(np.sqrt(np.mean(voice_S**2))))


def _soft_noise(num_samples: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Noise with less treble than white noise, as of a fan. Returns (S)."""
    white_S = rng.standard_normal(num_samples + 3)
    return (white_S[:-3] + white_S[1:-2] + white_S[2:-1] + white_S[3:]) / 2.0
