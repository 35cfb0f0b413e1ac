"""Lessons as numbers made by hand or drawn by chance, for whatever shows or stores one."""

import math

import numpy as np
from hypothesis import strategies as st

from serving.answer import ModelInfo, Window
from serving.lesson.record import ClassWindow, LessonResult, Moment, PersonTimeline, Tile

__all__ = ["LEVELS", "lesson_of", "lessons", "made_up_lesson", "model_info"]

LEVELS = ("very low", "low", "high", "very high")
_texts = st.text(min_size=1, max_size=12) | st.sampled_from(["=1+1", "@SUM(A1)", "<script>x</script>", 'a,b"c', "\ttab", "＝1"])


def model_info(**changes: object) -> ModelInfo:
    given: dict[str, object] = {
        "name": "engagement", "version": "3", "recipe": "demo", "run_id": "r-1", "levels": LEVELS, "reads": ("frames",),
        "num_frames": 32, "frame_size_px": 64, "data_digest": "0123456789abcdef0123", "dataset": "simulated", "simulated": True,
        "notice": "simulated clips of drawn people: no person was filmed, and no figure on these clips is a result on people",
        "limits": "The score estimates how engaged observers would judge a person to be. No emotion is inferred.",
        "validation_balanced_accuracy": 0.61, "test_balanced_accuracy": None,
    }  # fmt: skip
    return ModelInfo.model_validate({**given, **changes})


def lesson_of(
    people: tuple[PersonTimeline, ...], *, duration_s: float, window_s: float = 10.0, **changes: object
) -> LessonResult:
    """A whole lesson of these people: the class, shares and moments follow from their windows."""
    model = changes.pop("model", model_info())
    assert isinstance(model, ModelInfo)
    classes = []
    for start_s in np.arange(0, duration_s, window_s).tolist():
        now = [window for person in people for window in person.windows if window.start_s == start_s]
        scores = [window.score for window in now if window.score is not None]
        low, high = np.quantile(scores, (0.25, 0.75)).tolist() if scores else (None, None)
        counts = [sum(window.level_index == index for window in now) for index in range(len(model.levels))]
        mean = float(np.mean(scores)) if scores else None
        classes.append(
            ClassWindow(
                start_s=start_s,
                end_s=min(duration_s, start_s + window_s),
                num_present=len(now),
                num_scored=len(scores),
                mean_score=mean,
                low=low if len(scores) > 2 else mean,
                high=high if len(scores) > 2 else mean,
                level_counts=tuple(counts),
            )
        )
    totals = np.sum([window.level_counts for window in classes], axis=0) if classes else np.zeros(len(model.levels))
    scored = sorted((w for w in classes if w.mean_score is not None), key=lambda window: window.mean_score or 0.0)
    extremes = [("low", w) for w in scored[:2]] + [("high", w) for w in scored[:-3:-1]] if len(scored) > 4 else []
    given = {
        "duration_s": duration_s, "width_px": 1280, "height_px": 720, "window_s": window_s, "people": people,
        "class_timeline": tuple(classes), "level_shares": tuple((totals / max(1, totals.sum())).tolist()),
        "took_s": 3.0, "model": model,
        "moments": tuple(
            Moment(kind=kind, start_s=w.start_s, end_s=w.end_s, mean_score=w.mean_score or 0.0)  # type: ignore[arg-type]
            for kind, w in sorted(extremes, key=lambda pair: pair[1].start_s)
        ),
    }  # fmt: skip
    return LessonResult.model_validate({**given, **changes})


def made_up_lesson(*, minutes: int = 40, num_people: int = 8, seed: int = 5) -> LessonResult:
    """A class that starts well, tires in the middle and comes back; one camera is off for a while, one person leaves."""
    rng, side = np.random.default_rng(seed), math.ceil(math.sqrt(num_people))  # a gallery of side x side tiles
    num_windows = minutes * 6
    people = []
    for number in range(num_people):
        own, windows = rng.normal(0, 0.25), []
        for place in range(num_windows):
            share = place / num_windows
            if number == 2 and share > 0.8:
                break
            status = "scored"
            if number == 3 and 0.3 < share < 0.55:
                status = "camera_off"
            elif rng.random() < 0.03:
                status = "no_face"
            elif rng.random() < 0.04:
                status = "unsure"
            score = float(np.clip(0.45 + own - 0.8 * math.exp(-(((share - 0.55) / 0.12) ** 2)) + rng.normal(0, 0.22), -1, 1))
            windows.append(
                Window(
                    start_s=place * 10.0,
                    end_s=place * 10.0 + 10,
                    status=status,  # type: ignore[arg-type]
                    score=score if status == "scored" else None,
                    level_index=min(3, int((score + 1) * 2)) if status == "scored" else None,
                )
            )
        tile = Tile(
            start_s=0,
            end_s=windows[-1].end_s,
            left=number % side / side,
            top=number // side / side,
            width=1 / side,
            height=1 / side,
        )
        people.append(PersonTimeline(person=f"person{number}", tiles=(tile,), windows=tuple(windows)))
    return lesson_of(tuple(people), duration_s=minutes * 60.0)


@st.composite
def lessons(draw: st.DrawFn) -> LessonResult:
    """Any lesson: people who come and go, every status, any number of levels, texts of any kind."""
    levels = tuple(draw(st.lists(_texts, min_size=1, max_size=5, unique=True)))
    num_windows = draw(st.integers(0, 12))
    people = []
    for name in draw(st.lists(_texts, max_size=4, unique=True)):
        windows = []
        for place in range(num_windows):
            if draw(st.booleans()):
                status = draw(st.sampled_from(["scored", "unsure", "no_face", "camera_off"]))
                windows.append(
                    Window(
                        start_s=place * 10.0,
                        end_s=place * 10.0 + 10,
                        status=status,
                        score=draw(st.floats(-1, 1)) if status == "scored" else None,
                        level_index=draw(st.integers(0, len(levels) - 1)) if status == "scored" else None,
                        face_share=draw(st.none() | st.floats(0, 1)),
                    )
                )
        people.append(PersonTimeline(person=name, tiles=(), windows=tuple(windows)))
    model = model_info(
        levels=levels, notice=draw(st.just("") | _texts), limits=draw(_texts), simulated=draw(st.booleans()),
        validation_balanced_accuracy=draw(st.none() | st.floats(0, 1)),
    )  # fmt: skip
    problems = tuple(draw(st.lists(_texts, max_size=2)))
    return lesson_of(tuple(people), duration_s=num_windows * 10.0, model=model, problems=problems)
