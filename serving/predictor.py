"""The predictor: a bundle and a clip to an Answer. The endpoint, `rapt score` and the tests all go through it."""

import time
from pathlib import Path

import numpy as np
import torch

from data_shards.errors import ModelError
from data_shards.preprocess import PreprocessConfig, preprocess_file
from data_shards.reading.loader import batch_of
from data_shards.sample import Sample
from serving.answer import Answer, ModelInfo, Timings
from training.bundle import load_bundle, read_record
from training.evaluate import engagement_score, probabilities
from training.model_card import limits_of
from training.registry import EMOTION_IS_OFF, RegisteredModel

__all__ = ["Predictor", "check_servable"]


def check_servable(registered: RegisteredModel, *, allow_emotion: bool) -> None:
    """ModelError where the model cannot score a video, or would name an emotion and the operator has not turned that on."""
    record = read_record(registered.folder)
    if not record.reads_video:
        raise ModelError(
            f"{registered.name}: reads features that were computed elsewhere, so it cannot score a video; evaluate it on shards "
            "with `rapt evaluate`"
        )
    if record.infers_emotion and not allow_emotion:
        raise ModelError(f"{registered.name}: {EMOTION_IS_OFF}")


class Predictor:
    """A loaded bundle. `score_file` decodes and scores; `score_sample` scores what is decoded already."""

    def __init__(self, registered: RegisteredModel, device: torch.device | None = None, *, allow_emotion: bool = False) -> None:
        check_servable(registered, allow_emotion=allow_emotion)
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.record, self._model = load_bundle(registered.folder, self._device)
        record = self.record
        assert record.preprocess is not None, "a model that reads frames was trained on frames"
        self.preprocess: PreprocessConfig = record.preprocess  # a clip must be preprocessed as the training data was
        self.info = ModelInfo(
            name=registered.name,
            version=registered.version,
            recipe=record.run.recipe,
            run_id=record.run_id,
            levels=record.level_names,
            num_frames=record.preprocess.num_frames,
            frame_size_px=record.preprocess.size_px,
            data_digest=record.data_digest,
            dataset=record.dataset,
            simulated=record.simulated,
            notice=record.notice,
            limits=limits_of(record),
            validation_balanced_accuracy=record.validation.metrics.balanced_accuracy if record.validation else None,
            test_balanced_accuracy=record.test.metrics.balanced_accuracy if record.test else None,
        )

    def score_file(self, path: Path) -> Answer:
        """Decode, preprocess and score one clip. ClipError where it cannot be used."""
        begun_s = time.perf_counter()
        sample = preprocess_file(path, self.preprocess)
        return self.score_sample(sample, decode_ms=(time.perf_counter() - begun_s) * 1000)

    def score_sample(self, sample: Sample, *, decode_ms: float = 0.0) -> Answer:
        """Score one preprocessed clip; decode_ms is what its decoding took."""
        begun_s = time.perf_counter()
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
            duration_s=sample.meta.duration_s or 0.0,
            model=self.info,
            timings=Timings(decode_ms=round(decode_ms, 2), model_ms=round(model_ms, 2), total_ms=round(decode_ms + model_ms, 2)),
        )
