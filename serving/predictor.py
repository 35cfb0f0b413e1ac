"""The predictor: a bundle and a clip to an Answer. The endpoint, `rapt score` and the tests all go through it."""

import time
from pathlib import Path

import numpy as np
import torch

from data_shards.errors import ClipError, ModelError
from data_shards.extraction.clip_sample import ClipRecipe, ClipSample, clip_sample
from data_shards.extraction.recorded import runs_on_video
from data_shards.listing import Extractors
from data_shards.reading.loader import batch_of
from data_shards.sample import FRAMES, Sample
from serving.answer import Answer, AnyAnswer, ModelInfo, NoFace, Timings
from training.bundle import BundleRecord, load_bundle, read_record
from training.evaluate import engagement_score, probabilities
from training.model_card import limits_of
from training.registry import EMOTION_IS_OFF, RegisteredModel

__all__ = ["Predictor", "check_servable", "face_share", "servable_extractors"]


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
    """A loaded bundle. `score_file` decodes and scores; `score` scores what was decoded elsewhere."""

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
            validation_balanced_accuracy=record.validation.metrics.balanced_accuracy if record.validation else None,
            test_balanced_accuracy=record.test.metrics.balanced_accuracy if record.test else None,
        )

    def score_file(self, path: Path, *, transcript: Path | None = None) -> AnyAnswer:
        """Decode, preprocess and score one clip. ClipError where it cannot be used."""
        begun_s = time.perf_counter()
        clip = clip_sample(path, self.recipe, transcript=transcript)
        return self.score(clip, decode_ms=(time.perf_counter() - begun_s) * 1000)

    def score(self, clip: ClipSample, *, decode_ms: float = 0.0) -> AnyAnswer:
        """Score one clip; decode_ms is what its decoding took. ClipError where it lacks what the model cannot do without."""
        begun_s = time.perf_counter()
        sample = clip.sample
        self._check_inputs(clip)
        share = face_share(sample)
        if share == 0:
            return NoFace(duration_s=sample.meta.duration_s or 0.0, model=self.info)
        inputs = batch_of([sample], inputs=(*self._model.inputs, *self._model.optional)).inputs.to(self._device)
        with torch.inference_mode():
            logits_NK = self._model(inputs).logits_BK.double().cpu().numpy()
        chances_NK = probabilities(logits_NK, self.record.temperature)
        level = int(np.argmax(chances_NK[0]))
        model_ms = (time.perf_counter() - begun_s) * 1000
        return Answer(
            level=self.record.level_names[level],
            level_index=level,
            score=round(float(np.clip(engagement_score(chances_NK, self.record.level_scores)[0], -1, 1)), 6),
            probabilities={
                name: round(float(chance), 6) for name, chance in zip(self.record.level_names, chances_NK[0], strict=True)
            },
            frames_used=len(sample.meta.frame_times_s),
            features_used=self._used(sample),
            lacking={name: why for name, why in clip.lacking.items() if name in self._model.optional},
            face_share=share,
            duration_s=sample.meta.duration_s or 0.0,
            model=self.info,
            timings=Timings(decode_ms=round(decode_ms, 2), model_ms=round(model_ms, 2), total_ms=round(decode_ms + model_ms, 2)),
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


def servable_extractors(record: BundleRecord) -> Extractors:
    """The extractors that a scored video is put through; a feature that others made of the training data is not among them."""
    return {name: maker for name, maker in record.extractors.items() if runs_on_video(maker)}


def face_share(sample: Sample) -> float | None:
    """The share of looked-at frames that show a face, from 0 to 1; None where nothing looked for one."""
    rows = sample.features.get("openface")
    return None if rows is None else round(float(np.isfinite(rows).all(axis=1).mean()), 4)
