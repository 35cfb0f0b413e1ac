"""A seed of a row of CMOSE's tables: its stages trained by the loop itself, then the test split read once.

The validation split chooses the epoch; training does not see the test split. Letters: N clips of the test split.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from data_shards.reading.reader import ShardSet, Target
from data_shards.storage.shard_cache import CacheSettings
from training.bundle import load_bundle
from training.config import RunConfig
from training.evaluate import predict
from training.loop import train
from training.models.mocorank import ACOUSTICS, SPEECH

__all__ = ["HeldOutClips", "RowResult", "held_out_clips", "trained"]

Ints = npt.NDArray[np.int64]

_SEEN = ("openface", "i3d")  # every row is trained and tested on the clips that have both, so that rows differ by their model
_LABEL = "engagement"


class HeldOutClips(NamedTuple):
    """The test split: levels, people, who speaks; majority: the most frequent level of the training split."""

    labels_N: Ints
    subjects_N: tuple[str, ...]
    speaks_N: npt.NDArray[np.bool_]
    majority: int
    num_levels: int


class RowResult(NamedTuple):
    """A seed of a row. levels_N: of the test clips; validation: balanced accuracy of the chosen epoch; chosen: that epoch."""

    levels_N: Ints
    validation: float
    chosen: str


def held_out_clips(uri: str, cache: CacheSettings | None, *, needs_speech: bool) -> HeldOutClips:
    """The test clips that every row reads. ConfigError where a split or a feature that a table needs is not there."""
    with (
        ShardSet(uri, splits=("train",), target=Target(_LABEL, needs=_SEEN)) as training,
        _opened(uri, cache, needs=_SEEN) as test,
    ):
        clips = [test.read(number, ()).meta for number in range(len(test))]
        speaks: set[str] = set()
        if needs_speech:
            with _opened(uri, cache, needs=(*_SEEN, SPEECH, ACOUSTICS)) as speaking:
                speaks = {speaking.read(number, ()).meta.clip_id for number in range(len(speaking))}
        level_names, labels_N, _ = test.view
        return HeldOutClips(
            labels_N,
            tuple(clip.subject for clip in clips),
            np.array([clip.clip_id in speaks for clip in clips]),
            majority=int(np.bincount(training.view.levels_N).argmax()),
            num_levels=len(level_names),
        )


def _opened(uri: str, cache: CacheSettings | None, *, needs: tuple[str, ...]) -> ShardSet:
    return ShardSet(uri, splits=("test",), target=Target(_LABEL, needs=needs), cache_settings=cache)


def trained(
    name_and_seed: tuple[str, int],
    *,
    stages: Mapping[str, Sequence[RunConfig]],
    uri: str,
    cache: CacheSettings | None,
    scratch: str,
) -> RowResult:
    """Train a seed of a row, stage by stage, and read the test split with what came out."""
    name, seed = name_and_seed
    bundle, chosen, validation = None, [], float("nan")
    with TemporaryDirectory(dir=scratch) as folder:
        for number, stage in enumerate(stages[name]):
            run = _apart_from_test(stage).model_copy(update={"seed": seed, "starts_from": str(bundle or "")})
            bundle = train(run, uri, Path(folder) / str(number), run_id=f"{name}-{seed}", cache=cache)
            assert bundle is not None, "a run that nothing stops has its bundle"
            record, model = load_bundle(bundle)
            chosen.append(f"epoch {record.best_epoch} of {run.loop.epochs}")
            validation = record.validation.metrics.balanced_accuracy if record.validation else validation
        with _opened(uri, cache, needs=_SEEN) as test:
            predictions = predict(model, test, batch=run.loop.eval_batch, device=torch.device("cpu"))
    return RowResult(predictions.logits_NK.argmax(axis=1), validation, ", then ".join(chosen))


def _apart_from_test(run: RunConfig) -> RunConfig:
    """The run on the clips that all rows share, without its own look at the test split."""
    only_with = tuple(dict.fromkeys((*run.data.only_with, *_SEEN)))
    return run.model_copy(update={"data": run.data.model_copy(update={"only_with": only_with, "test_split": None})})
