"""The extractor "acoustics": how somebody sounds, in eight numbers, from Praat's tracks of volume and pitch by parselmouth.

X_aud of CMOSE (Wu et al. 2023, eq. 6): [L, Hv, Lv, Hp, Lp, std_v, std_p], and the voiced share as an eighth number.
Letters: S samples, F frames of Praat's pitch track.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, JsonValue, model_validator

from data_shards.decode_stream import StreamInfo
from data_shards.extraction.contract import ClipMaterial, Extractor, ExtractorSettings, Reading
from data_shards.extraction.sound import Sound

__all__ = ["COLUMNS", "Acoustics", "AcousticsSettings", "VoiceTrack", "acoustics_of", "track_voice"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# column to its unit; a share is one of voiced frames, save the last, which is of all
COLUMNS = {
    "speech_length": "s",
    "high_volume": "share",
    "low_volume": "share",
    "high_pitch": "share",
    "low_pitch": "share",
    "std_volume": "dB",
    "std_pitch": "semitone",
    "voiced": "share",
}
_INTENSITY_PERIODS = 6.4  # Praat's intensity needs a window of 6.4 periods of the lowest pitch, its pitch one of 3
_SEMITONES = 12.0  # an octave


class AcousticsSettings(ExtractorSettings):
    """What counts as voice, as loud and as high.

    pitch_floor_hz, pitch_ceiling_hz: where a voice's pitch is looked for. [choice] 75 to 500 Hz, from deep men's voices
    to children's; the paper names Praat alone. step_s: between frames. loud_db, high_semitones: how far above the clip's
    own median of voiced frames a frame counts as high, and how far below it as low.

    [choice] The paper gives no thresholds. They are relative to the clip, because a microphone's gain and a person's usual
    pitch say nothing of engagement; fixed distances rather than standard deviations, because the share beyond one's own
    standard deviation hardly varies from clip to clip and std_v and std_p are there already. 6 dB is twice the sound
    pressure and 2 semitones an eighth in frequency: both are heard at once, and neither comes of measuring alone.
    """

    pitch_floor_hz: float = Field(default=75.0, ge=30, le=500)
    pitch_ceiling_hz: float = Field(default=500.0, ge=60, le=2000)
    step_s: float = Field(default=0.01, ge=0.002, le=0.1)
    loud_db: float = Field(default=6.0, gt=0, le=60)
    high_semitones: float = Field(default=2.0, gt=0, le=24)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.pitch_ceiling_hz < 2 * self.pitch_floor_hz:
            raise ValueError(f"the pitch ceiling, {self.pitch_ceiling_hz:g} Hz, must be at least twice the floor")
        return self


@dataclass(frozen=True, eq=False)
class VoiceTrack:
    """Every step_s: volume_F in dB above 20 micropascal for full scale at 1 pascal, pitch_F in Hz, 0 where there is no voice."""

    volume_F: Doubles
    pitch_F: Doubles
    step_s: float


class Acoustics(Extractor):
    """Eight numbers a clip, float32 (8,), always finite: the columns and units of COLUMNS.

    A clip without a sound track lacks it; a silent or very short one has it, with a voiced share of 0.
    """

    settings_type = AcousticsSettings

    def __init__(self, settings: AcousticsSettings) -> None:
        import parselmouth  # noqa: F401  # what is not installed is missed now, not at the first clip

        super().__init__(settings)

    @property
    def about(self) -> dict[str, JsonValue]:
        import parselmouth

        return {
            "by": "Praat's intensity and autocorrelation pitch through parselmouth",
            "parselmouth": parselmouth.__version__,
            "praat": parselmouth.PRAAT_VERSION,
            "columns": list(COLUMNS),
            "units": list(COLUMNS.values()),
            "high_and_low": "beyond loud_db or high_semitones from the clip's own median of voiced frames",
            "speech_length": "of the transcript's times; of the voiced frames where there are none",
        }

    def read(self, clip: ClipMaterial, stream: StreamInfo | None) -> Reading:
        return _HeardClip(clip, self.settings)


class _HeardClip(Reading):
    """One clip: its sound is read and measured at the end."""

    def __init__(self, clip: ClipMaterial, settings: AcousticsSettings) -> None:
        self._clip = clip
        self._settings = settings

    def finish(self) -> Floats | None:
        sound = self._clip.sound
        if sound is None:
            self.lacking = "no sound track"
            return None
        return acoustics_of(track_voice(sound, self._settings), _told_speech_s(self._clip, sound), self._settings)


def _told_speech_s(clip: ClipMaterial, sound: Sound) -> float | None:
    """For how long somebody speaks as the transcript tells it, at most the clip; None where it does not tell."""
    if clip.words is None:
        return None if clip.transcript is None else 0.0
    return None if clip.words.speech_s is None else min(clip.words.speech_s, sound.duration_s)


def track_voice(sound: Sound, settings: AcousticsSettings) -> VoiceTrack:
    """Volume and pitch by Praat: `To Intensity`, mean subtracted, and `To Pitch (ac)` with its default costs.

    No frame where the sound is shorter than Praat's window, 85 ms with a floor of 75 Hz.
    """
    import parselmouth

    if sound.duration_s * settings.pitch_floor_hz < _INTENSITY_PERIODS + 0.01:
        return VoiceTrack(np.empty(0), np.empty(0), settings.step_s)
    praat = parselmouth.Sound(sound.samples_S.astype(np.float64), sound.rate_hz)
    pitch = praat.to_pitch_ac(settings.step_s, settings.pitch_floor_hz, pitch_ceiling=settings.pitch_ceiling_hz)
    intensity = praat.to_intensity(settings.pitch_floor_hz, settings.step_s, True)
    # the pitch's window is shorter, so its frames reach a little further out than the intensity's
    volume_F = np.interp(pitch.xs(), intensity.xs(), intensity.values[0])
    return VoiceTrack(volume_F, np.asarray(pitch.selected_array["frequency"], dtype=np.float64), settings.step_s)


def acoustics_of(track: VoiceTrack, told_speech_s: float | None, settings: AcousticsSettings) -> Floats:
    """[L, Hv, Lv, Hp, Lp, std_v, std_p, voiced share] of a track, float32 (8,).

    L: seconds of speech, told_speech_s where the transcript has times, else the voiced frames' (unvoiced sounds and pauses
    are then no part of it). All but the last number are 0 where nothing is voiced and nobody told of speech.
    [choice] Only voiced frames are asked for their volume: a pause is no soft voice, and the voiced share tells of pauses.
    std_p is in semitones, in which a low and a high voice that move alike have the same.
    """
    voiced_F = track.pitch_F > 0
    num_voiced = int(voiced_F.sum())
    speech_s = num_voiced * track.step_s if told_speech_s is None else told_speech_s
    if not num_voiced:
        return np.array([speech_s, *[0.0] * (len(COLUMNS) - 1)], dtype=np.float32)
    volume, pitch = track.volume_F[voiced_F], _SEMITONES * np.log2(track.pitch_F[voiced_F])
    louder, higher = volume - np.median(volume), pitch - np.median(pitch)
    return np.array(
        [
            speech_s,
            _share(louder > settings.loud_db),
            _share(louder < -settings.loud_db),
            _share(higher > settings.high_semitones),
            _share(higher < -settings.high_semitones),
            volume.std(),
            pitch.std(),
            _share(voiced_F),
        ],
        dtype=np.float32,
    )


def _share(frames_F: npt.NDArray[np.bool_]) -> float:
    return float(frames_F.mean())
