"""The samples of a run: its training batches as this worker reads them, and the splits that are evaluated."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_shards.manifest import read_manifest
from data_shards.reading.loader import Batch, ClipInputs, read_numbered, training_batches
from data_shards.reading.order import DrawStream
from data_shards.reading.reader import ShardSet, Target
from data_shards.storage.shard_cache import CacheSettings
from training.config import RunConfig
from training.losses import TrainingLevels
from training.models import EngagementModel
from training.world import World

__all__ = ["RunData"]


class RunData:
    """The shards at `uri` as `run` looks at them: opened once, closed at the end.

    run: fitted to the data. levels: how often each level is in the training splits, and its place on the engagement scale.
    """

    def __init__(self, run: RunConfig, uri: str | Path, world: World, device: torch.device, cache: CacheSettings | None) -> None:
        self.uri = uri
        self.manifest = read_manifest(uri)
        self.run = run.fitted_to(self.manifest.features)
        self._world, self._device, self._cache = world, device, cache
        self._held_out: dict[str, ShardSet] = {}
        run = self.run
        self.train = self._open(run.training_target, *run.data.train_splits)
        self.train.check_cache(run.data.window_shards if run.data.sampler == "windowed" else None)
        self.level_names, labels_N, scores_K = self.train.view
        counts_K = np.bincount(labels_N, minlength=len(self.level_names))
        self.levels = TrainingLevels(tuple(counts_K.tolist()), tuple(scores_K.tolist()))
        self.majority_level = int(counts_K.argmax())
        self.stream = DrawStream(
            labels_N, run.seed, run.data.sampler, run.loop.global_batch, self.train.shard_starts, run.data.window_shards
        )
        self._microbatch = run.loop.microbatch_for(world.size)
        self.accumulation = run.loop.global_batch // (self._microbatch * world.size)

    def batches(self, model: EngagementModel, start: int) -> Generator[Batch]:
        """This worker's endless microbatches of what `model` reads, from global position `start` on."""
        return training_batches(
            self.train,
            self.stream,
            inputs=model.inputs,
            optional=model.optional,
            microbatch=self._microbatch,
            rank=self._world.rank,
            world_size=self._world.size,
            start=start,
            num_threads=self.run.data.num_threads,
            pin=self._device.type == "cuda",
        )

    def first_samples(self, model: EngagementModel, count: int) -> Generator[tuple[ClipInputs, Tensor]]:
        """This worker's share of `count` training samples, every level in equal shares: what a loss is filled with.

        They are cut into microbatches and among workers as in training, and the first come again at the end until all
        are of one size. [choice] they are not augmented.
        """
        batch, size, rank = self.run.loop.eval_batch, self._world.size, self._world.rank
        numbers = np.resize(self.stream.equal_shares(count), -(-count // (batch * size)) * batch * size)
        mine = numbers.reshape(-1, size, batch)[:, rank].reshape(-1).tolist()
        for part in read_numbered(
            self.train,
            mine,
            inputs=model.inputs,
            optional=model.optional,
            batch=batch,
            num_threads=self.run.data.num_threads,
            pin=self._device.type == "cuda",
        ):
            yield part.inputs.to(self._device), part.labels_B.to(self._device)

    def held_out(self, split: str | None) -> ShardSet | None:
        """A split that is evaluated; None where the recipe names none or the data hold none of it."""
        if split is None or split not in self.manifest.splits:
            return None
        if split not in self._held_out:
            self._held_out[split] = self._open(self.run.target, split)
        return self._held_out[split]

    def with_optional(self, model: EngagementModel) -> dict[str, dict[str, int]]:
        """Of each split that was evaluated, how many clips have each input that the model reads only where it is there."""
        return {split: {name: shards.count_with(name) for name in model.optional} for split, shards in self._held_out.items()}

    def close(self) -> None:
        """Let go of open files, threads, batches decoded ahead."""
        for shards in (self.train, *self._held_out.values()):
            shards.close()

    def _open(self, target: Target, *splits: str) -> ShardSet:
        return ShardSet(self.uri, splits=splits, target=target, manifest=self.manifest, cache_settings=self._cache)
