"""The predictor: a bundle and a clip to an Answer. The endpoint, `rapt score` and the tests all go through it.

Letters: N samples, K levels.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from data_shards.errors import ClipError, ModelError
from data_shards.extraction.clip_sample import TIMELINE, ClipRecipe, ClipSample, clip_sample
from data_shards.extraction.look import Look, look_at_sample, shows_camera_off
from data_shards.extraction.recorded import runs_on_video
from data_shards.face_model import face_model_at_hand
from data_shards.listing import Extractors
from data_shards.reading.loader import batch_of
from data_shards.sample import FRAMES, Sample
from serving.answer import Answer, AnyAnswer, CameraOff, ModelInfo, NoFace, Timings, TooShort, Unsure
from serving.timeline import Floats, interval_of, is_wide_open, needs_score, score_of, window_of
from training.bundle import BundleRecord, load_bundle, read_record
from training.evaluate import probabilities
from training.model_card import limits_of
from training.models import EngagementModel
from training.registry import EMOTION_IS_OFF, RegisteredModel

__all__ = ["MIN_DURATION_S", "Predictor", "check_servable", "face_share", "servable_extractors"]

MIN_DURATION_S = 1.0  # [choice] what observers were shown, and models learnt from, are clips of ten seconds and more
_PIXELS_AT_ONCE = 50 * 224 * 224  # of a forward pass: one published clip, 38 of the demo's; ResNet-18 holds 0.3 GB of that


def check_servable(registered: RegisteredModel, *, allow_emotion: bool) -> None:
    """ModelError where the model cannot score a video, or would name an emotion and the operator has not turned that on."""
    record = read_record(registered.folder)
    if not record.reads_video:
        raise ModelError(
            f"{registered.name}: reads features that Rapt's extractors did not make of the clips, so it cannot score a video; "
            "evaluate it on shards with `rapt evaluate`"
        )
    if record.infers_emotion and not allow_emotion:
        raise ModelError(f"{registered.name}: {EMOTION_IS_OFF}")


class Predictor:
    """A loaded bundle. `score_file` decodes and scores; `score` and `score_many` score what was decoded elsewhere.

    Safe to use from several threads: scoring changes nothing, and looking for faces waits for its turn.
    """

    def __init__(self, registered: RegisteredModel, device: torch.device | None = None, *, allow_emotion: bool = False) -> None:
        check_servable(registered, allow_emotion=allow_emotion)
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.record, self._model = load_bundle(registered.folder, self._device)
        record = self.record
        # a clip must be made into frames and features as the training data was
        self.recipe = ClipRecipe(record.preprocess, servable_extractors(record))
        self.info = ModelInfo(
            name=registered.name,
            version=registered.version,
            recipe=record.run.recipe,
            run_id=record.run_id,
            levels=record.level_names,
            reads=(*self._model.inputs, *(name for name in self._model.optional if name in self.recipe.extractors)),
            num_frames=record.preprocess.num_frames if record.preprocess else 0,
            frame_size_px=record.preprocess.size_px if record.preprocess else 0,
            data_digest=record.data_digest,
            dataset=record.dataset,
            simulated=record.simulated,
            notice=record.notice,
            limits=limits_of(record),
            looks_for_faces="openface" in self.recipe.extractors or face_model_at_hand() is not None,
            window_s=self.recipe.window_s,
            validation_balanced_accuracy=record.validation.metrics.balanced_accuracy if record.validation else None,
            test_balanced_accuracy=record.test.metrics.balanced_accuracy if record.test else None,
        )

    @property
    def model(self) -> EngagementModel:
        """The model in evaluation mode. It is shared: hang no hooks into it."""
        return self._model

    def score_file(self, path: Path, *, transcript: Path | None = None) -> AnyAnswer:
        """Decode, preprocess and score one clip. ClipError where it cannot be used."""
        begun_s = time.perf_counter()
        clip = clip_sample(path, self.recipe, transcript=transcript)
        return self.score(clip, decode_ms=(time.perf_counter() - begun_s) * 1000)

    def score(self, clip: ClipSample, *, decode_ms: float = 0.0) -> AnyAnswer:
        """Score one clip; decode_ms is what its decoding took. ClipError where it lacks what the model cannot do without."""
        return self.score_many([clip], decode_ms=[decode_ms])[0]

    def score_many(self, clips: Sequence[ClipSample], *, decode_ms: Sequence[float] = ()) -> list[AnyAnswer]:
        """The answer to each clip, in order; clips and windows whose inputs have one shape go through the model together.

        decode_ms: what each one's decoding took. The same as one by one, but for the rounding of sums (1e-5 of a probability).
        ClipError where one of them lacks what the model cannot do without. timings.model_ms is that of all together, for which
        each has waited.
        """
        begun_s = time.perf_counter()
        for clip in clips:
            self._check_inputs(clip)
        looks = [self._look(clip) for clip in clips]
        answers = [self._abstention(clip, look) for clip, look in zip(clips, looks, strict=True)]
        scored = [number for number, answer in enumerate(answers) if answer is None]
        chances = self._chances([sample for number in scored for sample in _samples_to_score(clips[number])])
        model_ms = (time.perf_counter() - begun_s) * 1000
        for number in scored:
            timings = _timings(decode_ms[number] if decode_ms else 0.0, model_ms)
            answers[number] = self._answer(clips[number], looks[number], chances, timings)
        return [answer for answer in answers if answer is not None]

    def _look(self, clip: ClipSample) -> Look:
        """What is known of who is in view: from OpenFace's rows where the model reads them, from the look at the video, or,
        of a stored sample, from its own frames."""
        share = face_share(clip.sample)
        if clip.look is None and share:  # there is somebody: nobody else need look for faces
            return Look(share, camera_off=bool(self.recipe.preprocess) and shows_camera_off(clip.sample))
        look = clip.look or (look_at_sample(clip.sample) if self.recipe.preprocess else Look(None, camera_off=False))
        return look if share is None else look._replace(face_share=share)

    def _abstention(self, clip: ClipSample, look: Look) -> AnyAnswer | None:
        """Why there is nothing to score; None where there is."""
        duration_s = clip.sample.meta.duration_s
        if duration_s is not None and duration_s < MIN_DURATION_S:
            return TooShort(min_duration_s=MIN_DURATION_S, duration_s=duration_s, model=self.info)
        if look.camera_off:
            return CameraOff(duration_s=duration_s or 0.0, model=self.info)
        if look.face_share == 0:
            return NoFace(duration_s=duration_s or 0.0, model=self.info)
        return None

    def _chances(self, samples: Sequence[Sample]) -> Iterator[Floats]:
        """Each sample's chances_K, in order. Samples of one shape share forward passes, of bounded size."""
        read = (*self._model.inputs, *self._model.optional)
        by_shape: dict[object, list[int]] = {}
        for number, sample in enumerate(samples):
            by_shape.setdefault(_shape_of(sample, read), []).append(number)
        chances_NK = np.empty((len(samples), len(self.record.level_names)))
        for numbers in by_shape.values():
            at_once = max(1, _PIXELS_AT_ONCE // _num_pixels(samples[numbers[0]], read))
            for begin in range(0, len(numbers), at_once):
                part = numbers[begin : begin + at_once]
                chances_NK[part] = self._forward([samples[number] for number in part], read)
        return iter(chances_NK)

    def _forward(self, samples: Sequence[Sample], read: Sequence[str]) -> Floats:
        """chances_NK of samples of one shape, in one forward pass. Nothing of the model changes, so threads may share it."""
        inputs = batch_of(samples, inputs=read).inputs.to(self._device)
        with torch.inference_mode():
            logits_NK = self._model(inputs).logits_BK.double().cpu().numpy()
        return probabilities(logits_NK, self.record.temperature)

    def _answer(self, clip: ClipSample, look: Look, chances: Iterator[Floats], timings: Timings) -> Answer | Unsure:
        """The answer to a clip; takes its chances, and those of its windows, from `chances`."""
        chances_K = next(chances)
        timeline = tuple(
            window_of(window, next(chances) if needs_score(window) else None, self.record) for window in clip.windows
        )
        interval = interval_of(chances_K, self.record)
        common = {
            "probabilities": {
                name: round(float(chance), 6) for name, chance in zip(self.record.level_names, chances_K, strict=True)
            },
            "frames_used": len(clip.sample.meta.frame_times_s),
            "lacking": {name: why for name, why in clip.lacking.items() if name in (*self._model.optional, TIMELINE)},
            "face_share": look.face_share,
            "timeline": timeline,
            "duration_s": clip.sample.meta.duration_s or 0.0,
            "model": self.info,
            "timings": timings,
        }
        if interval is not None and is_wide_open(interval, self.record):
            return Unsure(interval=interval, **common)
        level = int(np.argmax(chances_K))
        return Answer(
            level=self.record.level_names[level],
            level_index=level,
            score=score_of(chances_K, self.record),
            features_used=self._used(clip.sample),
            interval=interval,
            **common,
        )

    def _used(self, sample: Sample) -> tuple[str, ...]:
        """The features that change the answer: a model reads its optional ones together, or none of them (MocoRank's speech
        and acoustics, Wu et al. 2023, eq. 7)."""
        has_all = all(name in sample.features for name in self._model.optional)
        read = (*self._model.inputs, *(self._model.optional if has_all else ()))
        return tuple(sorted(name for name in read if name != FRAMES))

    def _check_inputs(self, clip: ClipSample) -> None:
        missing = [name for name in self._model.inputs if name != FRAMES and name not in clip.sample.features]
        if missing:
            reason = clip.lacking.get(missing[0], "the clip has none")
            raise ClipError(f"{clip.sample.meta.clip_id}: cannot be scored, its '{missing[0]}' is missing ({reason})")


def _samples_to_score(clip: ClipSample) -> list[Sample]:
    return [clip.sample, *(window.sample for window in clip.windows if needs_score(window))]


def _shape_of(sample: Sample, read: Sequence[str]) -> object:
    """What two samples must share to go through the model together without being filled up."""
    frames = sample.frame_shape() if FRAMES in read else ()
    return frames, tuple((name, values.shape) for name in read if (values := sample.features.get(name)) is not None)


def _num_pixels(sample: Sample, read: Sequence[str]) -> int:
    frames, height_px, width_px, _ = sample.frame_shape() if FRAMES in read else (1, 256, 256, 3)
    return frames * height_px * width_px


def _timings(decode_ms: float, model_ms: float) -> Timings:
    return Timings(decode_ms=round(decode_ms, 2), model_ms=round(model_ms, 2), total_ms=round(decode_ms + model_ms, 2))


def servable_extractors(record: BundleRecord) -> Extractors:
    """The extractors that a scored video is put through; a feature that others made of the training data is not among them."""
    return {name: maker for name, maker in record.extractors.items() if runs_on_video(maker)}


def face_share(sample: Sample) -> float | None:
    """The share of looked-at frames that show a face, from 0 to 1; None where nothing looked for one."""
    rows = sample.features.get("openface")
    return None if rows is None else round(float(np.isfinite(rows).all(axis=1).mean()), 4)
