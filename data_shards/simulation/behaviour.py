"""What a person does over time: the behaviour track that picture, sound and sidecars are made from.

The levels are DAiSEE's (0 very low .. 3 very high); the behaviours are from the list CMOSE's annotators were
given (Wu et al. 2023). Two pairs of levels hold the same frames in another order:

    level 3 nods again and again        level 1 looks down once or twice, for long
    level 2 blinks again and again      level 0, drowsing, closes the eyes a few times, for long

The second of each pair is a track of the first with its frames reordered, so per-frame pitch and eye closure have one
distribution in both, and their order over time tells them apart. A model without order stays somewhat above chance
(a forest on hand-made statistics of 30 frames told 59 to 68 % of either pair apart): idle motion and the small things below
meet other frames in a few long bouts than in many short ones.
Two minorities can be told from a single frame: 40 % of level 0 looks away, at a phone or yawns; 15 % of level 3 leans in
and speaks. Short glances, single blinks, a little speech and a small lean are drawn alike for every level.

Letters: T frames of the clip.
"""

import numpy as np

from data_shards.simulation.track import BehaviourTrack, Draft, FloatArray

MEAN_ENGAGEMENT = (0.12, 0.38, 0.64, 0.88)
SHARE_REVEALED_LEVEL_0 = 0.40
SHARE_ACTIVE_LEVEL_3 = 0.15
_ENGAGEMENT_HZ = 0.05
_IDLE_HZ = 0.6


def simulate_behaviour(label: int, duration_s: float, fps: int, rng: np.random.Generator) -> BehaviourTrack:
    """A track of round(duration_s * fps) frames for a label in 0..3; ValueError for other labels."""
    if label not in range(len(MEAN_ENGAGEMENT)):
        raise ValueError(f"label is {label}; use 0, 1, 2 or 3")
    num_frames = round(duration_s * fps)
    draft = Draft(num_frames=num_frames, fps=fps, rng=rng, deviation_T=_wave(num_frames, fps, rng, _ENGAGEMENT_HZ))
    variant = _LEVELS[label](draft)
    _add_distractors(draft)
    return _finish(draft, label, variant)


def _level_0(draft: Draft) -> str:
    if draft.rng.random() >= SHARE_REVEALED_LEVEL_0:
        closure_T = gather_into_bouts(_blinks(draft), draft.deviation_T, draft.rng, max_bouts=3)
        draft.closure_T = closure_T
        draft.note_where("drowse", closure_T > 0.5)
        return "drowsing"
    variant = ("away", "phone", "yawning")[draft.rng.integers(3)]
    _REVEALED[variant](draft)
    return variant


def _level_1(draft: Draft) -> str:
    pitch_T = gather_into_bouts(_nods(draft), draft.deviation_T, draft.rng, max_bouts=2)
    draft.pitch_T = pitch_T
    draft.note_where("look_down", pitch_T > 0.5 * pitch_T.max())
    return "looking_down"


def _level_2(draft: Draft) -> str:
    draft.closure_T = _blinks(draft)
    draft.note_where("blink", draft.closure_T > 0.5)
    return "blinking"


def _level_3(draft: Draft) -> str:
    draft.pitch_T = _nods(draft)
    draft.note_where("nod", draft.pitch_T > 0.5 * draft.pitch_T.max())
    if draft.rng.random() >= SHARE_ACTIVE_LEVEL_3:
        return "nodding"
    _lean_in(draft, 1.0, *draft.random_span_s(4.0, 7.0))
    _speak(draft, *draft.random_span_s(2.5, 4.5))
    return "active"


def _nods(draft: Draft) -> FloatArray:
    """Pitch of repeated nods: 0.6 to 1.0 a second, down in 35 to 50 % of the frames by 0.34 to 0.46 rad."""
    period_s = draft.rng.uniform(1.0, 1.6)
    share = draft.rng.uniform(0.35, 0.50)
    depth_rad = draft.rng.uniform(0.34, 0.46)
    return depth_rad * _pulse_train(draft, share, (0.85 * share * period_s, 1.15 * share * period_s))


def _blinks(draft: Draft) -> FloatArray:
    """Eye closure of slow blinks of 0.3 to 0.5 s, shut in 28 to 40 % of the frames."""
    return _pulse_train(draft, draft.rng.uniform(0.28, 0.40), (0.30, 0.50))


def _pulse_train(draft: Draft, share: float, width_s: tuple[float, float]) -> FloatArray:
    """Pulses from 0 to about 1 that hold `share` of the frames; more often where engagement is high."""
    track_T = np.zeros(draft.num_frames)
    time_s = -draft.rng.uniform(0.0, 1.0)
    while time_s < draft.duration_s:
        length_s = draft.rng.uniform(*width_s)
        start, end = round(time_s * draft.fps), round((time_s + length_s) * draft.fps)
        track_T[max(0, start) : max(0, end)] = draft.rng.uniform(0.88, 1.0)
        pace = 1.0 + 0.25 * draft.deviation_T[min(max(0, end), draft.num_frames - 1)]
        gap_s = length_s * (1.0 - share) / share * draft.rng.uniform(0.8, 1.2) / pace
        time_s += length_s + gap_s
    flank = np.ones(max(1, round(0.13 * draft.fps)))
    return np.convolve(track_T, flank / len(flank), mode="same")


def gather_into_bouts(track_T: FloatArray, deviation_T: FloatArray, rng: np.random.Generator, *, max_bouts: int) -> FloatArray:
    """The values of track_T in another order: the largest around 1 to max_bouts moments of low engagement.

    Every frame is ranked by its distance to the nearest moment and takes the value of that rank, so the
    result is a permutation of track_T that rises and falls once a moment.
    """
    num_frames = len(track_T)
    num_bouts = int(rng.integers(1, max_bouts + 1))
    moments = _low_moments(deviation_T, num_bouts)
    width = rng.uniform(0.75, 1.3, size=(len(moments), 1))
    distance_T = (np.abs(np.arange(num_frames)[None, :] - np.array(moments)[:, None]) / width).min(axis=0)
    gathered_T = np.empty(num_frames)
    gathered_T[np.argsort(distance_T, kind="stable")] = np.sort(track_T)[::-1]
    return gathered_T


def _low_moments(deviation_T: FloatArray, count: int) -> list[int]:
    """Frames of lowest engagement, away from the ends and from each other."""
    num_frames = len(deviation_T)
    open_T = deviation_T.copy()
    margin, spacing = num_frames // 8, num_frames // 3
    open_T[:margin] = np.inf
    open_T[num_frames - margin :] = np.inf
    moments: list[int] = []
    while len(moments) < count and np.isfinite(open_T).any():
        moment = int(np.argmin(open_T))
        moments.append(moment)
        open_T[max(0, moment - spacing) : moment + spacing] = np.inf
    return moments


def _low_spans_s(draft: Draft, count: int, share: float) -> list[tuple[float, float]]:
    """Spans around the moments of low engagement that together hold `share` of the clip."""
    moments = _low_moments(draft.deviation_T, count)
    half_s = 0.5 * share * draft.duration_s / len(moments)
    return [(moment / draft.fps - half_s, moment / draft.fps + half_s) for moment in moments]


def _away(draft: Draft) -> None:
    side = draft.rng.choice((-1.0, 1.0))
    for start_s, end_s in _low_spans_s(draft, int(draft.rng.integers(1, 3)), draft.rng.uniform(0.55, 0.85)):
        draft.yaw_T += side * draft.rng.uniform(0.55, 0.80) * draft.bout(start_s, end_s, 0.35)
        draft.note("look_away", start_s, end_s)


def _phone(draft: Draft) -> None:
    for start_s, end_s in _low_spans_s(draft, 1, draft.rng.uniform(0.60, 0.90)):
        down_T = draft.bout(start_s, end_s, 0.45)
        draft.pitch_T += draft.rng.uniform(0.55, 0.64) * down_T
        draft.phone_T = np.maximum(draft.phone_T, down_T)
        draft.note("phone", start_s, end_s)


def _yawn(draft: Draft) -> None:
    for start_s, end_s in _low_spans_s(draft, 2, draft.rng.uniform(0.50, 0.65)):
        wide_T = draft.bout(start_s, end_s, 0.5)
        draft.mouth_T = np.maximum(draft.mouth_T, wide_T)
        draft.closure_T = np.maximum(draft.closure_T, 0.85 * wide_T)
        draft.pitch_T -= 0.16 * wide_T
        draft.note("yawn", start_s, end_s)


def _lean_in(draft: Draft, amount: float, start_s: float, end_s: float) -> None:
    draft.lean_T = np.maximum(draft.lean_T, amount * draft.bout(start_s, end_s, 0.6))
    draft.note("lean_in", start_s, end_s)


def _speak(draft: Draft, start_s: float, end_s: float) -> None:
    """Speech with about four syllables a second; the mouth opens with each."""
    time_s_T = np.arange(draft.num_frames) / draft.fps
    gate_T = (time_s_T >= start_s) & (time_s_T < end_s)
    rate_hz = draft.rng.uniform(3.6, 4.4)
    phase_T = rate_hz * (time_s_T - start_s) + 0.3 * np.sin(2 * np.pi * 0.7 * time_s_T + draft.rng.uniform(0, 6.28))
    syllable_T = np.sin(np.pi * phase_T) ** 2 * (0.45 + 0.2 * np.sin(2 * np.pi * 0.9 * time_s_T))
    draft.mouth_T = np.maximum(draft.mouth_T, np.where(gate_T, 0.05 + syllable_T, 0.0))
    draft.speaking_T |= gate_T
    draft.note("speak", start_s, end_s)


def _add_distractors(draft: Draft) -> None:
    """Small things that anybody does, drawn with the same chances for every level."""
    if draft.rng.random() < 0.30:
        start_s, end_s = draft.random_span_s(0.3, 0.6)
        draft.yaw_T += draft.rng.choice((-1.0, 1.0)) * draft.rng.uniform(0.25, 0.40) * draft.bout(start_s, end_s, 0.2)
        draft.note("glance", start_s, end_s)
    if draft.rng.random() < 0.70:
        start_s, end_s = draft.random_span_s(0.10, 0.16)
        draft.closure_T = np.maximum(draft.closure_T, draft.bout(start_s, end_s, 0.07))
        draft.note("blink", start_s, end_s)
    if draft.rng.random() < 0.20:
        _speak(draft, *draft.random_span_s(1.0, 2.2))
    if draft.rng.random() < 0.15:
        _lean_in(draft, draft.rng.uniform(0.4, 0.8), *draft.random_span_s(2.0, 4.0))


def _wave(num_frames: int, fps: int, rng: np.random.Generator, low_hz: float) -> FloatArray:
    """A smooth random process of unit scale: sines at low_hz, twice and four times that. (T) within 1.5."""
    time_s_T = np.arange(num_frames) / fps
    wave_T = np.zeros(num_frames)
    for octave in range(3):
        rate_hz = low_hz * 2.0**octave * rng.uniform(0.8, 1.25)
        wave_T += np.sin(2 * np.pi * (rate_hz * time_s_T + rng.random())) / (1.0 + 0.6 * octave)
    return wave_T / 1.4


def _idle_motion(num_frames: int, fps: int, rng: np.random.Generator) -> FloatArray:
    """Six independent waves (6, T) for the small motion of somebody sitting still, calm or restless."""
    return np.stack([rng.uniform(0.3, 1.7) * _wave(num_frames, fps, rng, _IDLE_HZ) for _ in range(6)])


def _saccades(num_frames: int, fps: int, rng: np.random.Generator) -> FloatArray:
    """Where the eyes rest, (2, T) in [-1, 1]: they jump about three times a second."""
    frames_each = max(1, round(fps / 3))
    rests = rng.uniform(-1.0, 1.0, size=(2, num_frames // frames_each + 1))
    return np.repeat(rests, frames_each, axis=1)[:, :num_frames]


def _finish(draft: Draft, label: int, variant: str) -> BehaviourTrack:
    """Adds idle sway and gaze to the behaviours, and looks at the screen wherever nothing else is done."""
    num_frames, fps, rng = draft.num_frames, draft.fps, draft.rng
    elsewhere_T = (np.abs(draft.yaw_T) > 0.2) | (draft.pitch_T > 0.17) | (draft.closure_T > 0.5) | (draft.mouth_T > 0.7)
    draft.note_where("screen", ~elsewhere_T)
    dips_T = 0.5 * draft.phone_T + 0.3 * (np.abs(draft.yaw_T) > 0.5)
    engagement_T = np.clip(MEAN_ENGAGEMENT[label] + 0.08 * draft.deviation_T - 0.1 * dips_T, 0.0, 1.0)
    # Idle motion is quicker than a bout is long, or where the head is would tell bouts from oscillation.
    idle_6T = _idle_motion(num_frames, fps, rng)
    glance_x_T, glance_y_T = _saccades(num_frames, fps, rng)
    return BehaviourTrack(
        label=label,
        variant=variant,
        fps=fps,
        engagement_T=engagement_T,
        pitch_rad_T=draft.pitch_T + 0.014 * idle_6T[0] + 0.004 * rng.standard_normal(num_frames),
        yaw_rad_T=draft.yaw_T + 0.022 * idle_6T[1] + 0.004 * rng.standard_normal(num_frames),
        roll_rad_T=0.018 * idle_6T[2],
        gaze_x_T=np.clip(0.8 * draft.yaw_T + 0.12 * glance_x_T, -1.0, 1.0),
        gaze_y_T=np.clip(0.8 * draft.pitch_T + 0.10 * glance_y_T, -1.0, 1.0),
        eye_closure_T=np.clip(draft.closure_T, 0.0, 1.0),
        mouth_T=np.clip(draft.mouth_T, 0.0, 1.0),
        lean_T=draft.lean_T,
        sway_x_T=0.022 * idle_6T[3],
        sway_y_T=0.010 * idle_6T[4],
        brow_T=np.clip(0.3 * idle_6T[5], 0.0, 1.0),
        phone_T=draft.phone_T,
        speaking_T=draft.speaking_T,
        segments=tuple(sorted(draft.segments, key=lambda segment: (segment.start_s, segment.name))),
    )


_REVEALED = {"away": _away, "phone": _phone, "yawning": _yawn}
_LEVELS = (_level_0, _level_1, _level_2, _level_3)
