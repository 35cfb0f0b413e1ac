"""The training loop: plain PyTorch over an Engine, alike in-process and under Ray Train. `train` reads as the story of a run."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from data_shards.errors import ConfigError, ModelError
from data_shards.listing import Extractors
from data_shards.reading.loader import Batch
from data_shards.sample import FRAMES
from data_shards.storage.shard_cache import CacheSettings
from data_shards.storage.store import Store
from training.augment import augment
from training.bundle import BUNDLE_VERSION, BundleRecord, read_record, save_bundle
from training.calibration import coverage_on, fit_calibration
from training.checkpoint import CheckpointRecord, read_state, read_weights
from training.commit import current_commit
from training.config import RunConfig, first_difference, same_training
from training.engine import DIVERGED, Engine, MakeEngine, TorchEngine, lr_at
from training.evaluate import Predictions, evaluate, fit_temperature, predict
from training.events import EpochDone, Event, Listener, RunFinished, RunStarted, StepDone
from training.losses import LOSSES, EngagementLoss
from training.metrics import Evaluation
from training.model_card import notice_of
from training.models import MODELS, EngagementModel
from training.run_data import RunData
from training.saving import RunCheckpoints, checkpoint_store
from training.starting import Start, prepare
from training.world import World

__all__ = ["Phase", "Watch", "train"]

Phase = Literal["data", "forward", "backward", "update", "checkpoint", "evaluate"]
Watch = Callable[[Phase, int], None]
"""Told on every worker when a phase begins, and of which step (from 1): what a profiler and a hang detector look at."""


def _unwatched(phase: Phase, step: int) -> None:
    pass


def _never() -> bool:
    return False


@dataclass
class Progress:
    """How far a run is. All of it is in every checkpoint. position: draws consumed globally."""

    step: int = 0
    position: int = 0
    best_epoch: int = 0
    best_metric: float | None = None
    loss_sum: float = 0.0
    loss_count: int = 0
    skipped: tuple[str, ...] = field(default=())
    stopping: bool = False


def train(
    run: RunConfig,
    data: str | Path,
    run_folder: Path,
    *,
    run_id: str,
    world: World | None = None,
    device: torch.device | None = None,
    cache: CacheSettings | None = None,
    listeners: Sequence[Listener] = (),
    stop_after_step: int | None = None,
    make_engine: MakeEngine = TorchEngine,
    should_stop: Callable[[], bool] = _never,
    watch: Watch = _unwatched,
    checkpoints: str | Path | Store | None = None,
) -> Path | None:
    """Train `run` on the shards at `data`, a folder or s3://bucket/prefix; returns the bundle's folder.

    The bundle is written below run_folder. checkpoints: where they lie, a folder or s3://bucket/prefix of this run alone;
    run_folder/checkpoints where it is None. Only the first worker reads and writes there, and looks for a bundle, and hands
    the others what it read: their run_folder may be another machine's.
    A run that has checkpoints goes on from its last good one, also where run_folder is new; one that has its bundle is
    finished, and is neither trained nor tested again. stop_after_step ends the run early, with a checkpoint and no bundle
    (None is returned). cache: where shards of a bucket are kept.
    should_stop: asked after each step on every worker; where one of them says so, all end the step, and where it ended an
    epoch its validation, a checkpoint is copied and written, which takes checkpoint_writer.DRAIN_S at most, and Stopped is
    raised. An error also waits for the last checkpoint; KeyboardInterrupt does not.
    """
    world, device = world or World(), device or torch.device("cpu")
    tell = _teller(listeners if world.is_first else ())
    bundle = run_folder / "bundle"
    record = world.from_first(lambda: read_record(bundle) if (bundle / "run.json").exists() else None)
    if record is not None:
        tell(RunFinished(bundle=str(bundle), best_epoch=record.best_epoch, test=record.test))
        return bundle
    store = checkpoint_store(checkpoints, run_folder)
    with closing(_Setup(run, data, run_folder, world, device, cache, make_engine, watch, store)) as setup:
        progress = setup.resume()
        tell(setup.started(run_id, progress))
        if progress.step == 0:
            setup.fill_loss()
        batches = setup.data.batches(setup.engine.model, progress.position)
        with closing(batches), setup.checkpoints.writing(tell):
            while progress.step < setup.total_steps:
                tell(setup.step(batches, progress, should_stop))
                epoch_ended = setup.ends_epoch(progress)
                if epoch_ended:
                    tell(setup.finish_epoch(progress))
                if epoch_ended or progress.stopping or setup.checkpoint_due(progress, stop_after_step):
                    setup.checkpoint(progress)
                setup.checkpoints.tell_news(tell)
                if progress.step == setup.total_steps:
                    break  # nothing is left to stop
                if progress.stopping:
                    raise setup.checkpoints.stopped(run_id, progress.step, tell)
                if progress.step == stop_after_step:
                    return None
        finished = setup.finish(run_id, progress)
    tell(finished)
    return Path(finished.bundle)


def _teller(listeners: Sequence[Listener]) -> Listener:
    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


class _Setup:
    """What stays the same over a run: the data, the engine, the loss, and the numbers that follow from them."""

    def __init__(
        self,
        run: RunConfig,
        data: str | Path,
        run_folder: Path,
        world: World,
        device: torch.device,
        cache: CacheSettings | None,
        make_engine: MakeEngine,
        watch: Watch,
        store: Store,
    ) -> None:
        self.run_folder, self.world, self.device, self.watch = run_folder, world, device, watch
        self.data = RunData(run, data, world, device, cache)
        self.run = run = self.data.run
        self.epoch_length = self.data.stream.epoch_length
        self.total_steps = math.ceil(run.loop.epochs * self.epoch_length / run.loop.global_batch)
        torch.manual_seed(run.seed)  # the first weights: the same on every worker
        model = MODELS[run.model.name](run.model, len(self.data.level_names))
        scratch = run_folder / "outgoing"
        self.checkpoints = RunCheckpoints(store, kept=run.loop.checkpoints_kept, scratch=scratch, world=world)
        if self.checkpoints.is_new:
            self.start = prepare(model, run)
        else:  # the checkpoint holds all weights: what the run started from need not be there any more
            self.start = Start()
            model.freeze(run.freeze)
        self.num_parameters = sum(p.numel() for p in model.parameters())  # an engine may take the weights away
        self.num_frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
        self.engine: Engine = make_engine(model, run, world=world, device=device)
        self.loss: EngagementLoss = LOSSES[run.loss.name](run.loss, self.data.levels).to(device)
        try:
            self.loss.start(self.engine.whole(), world)
        except BaseException:
            self.engine.close()
            raise

    def resume(self) -> Progress:
        record, state_bytes, best_bytes, skipped = self.checkpoints.take_found()
        if record is None or state_bytes is None:
            return Progress(skipped=skipped)
        if record.data_digest != self.data.manifest.digest:
            raise ConfigError(
                f"{self.run_folder}: this run was trained on data {record.data_digest[:12]}, {self.data.uri} is "
                f"{self.data.manifest.digest[:12]}; name the data it was started with, or start a new run"
            )
        if difference := first_difference(record.run, same_training(self.run)):
            raise ConfigError(
                f"{self.checkpoints.uri}: the run whose checkpoints lie there was started with {difference}; "
                "use the settings that it was started with, or start a new run"
            )
        state = read_state(state_bytes)
        try:
            self.engine.load_state(state["engine"])
            self.loss.load_state_dict(state["loss"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ModelError(
                f"{self.checkpoints.uri}: the checkpoint of step {record.step} is not of this run's model "
                f"({str(error).splitlines()[0][:120]}); use the recipe and settings that it was started with"
            ) from None
        torch.set_rng_state(state["torch_rng"])
        self.checkpoints.best = read_weights(best_bytes) if best_bytes else {}
        fields = ("step", "position", "best_epoch", "best_metric", "loss_sum", "loss_count")
        return Progress(**{name: getattr(record, name) for name in fields}, skipped=skipped)

    def started(self, run_id: str, progress: Progress) -> RunStarted:
        return RunStarted(
            run_id=run_id,
            recipe=self.run.recipe,
            start_step=progress.step,
            total_steps=self.total_steps,
            steps_per_epoch=self.epoch_length / self.run.loop.global_batch,
            global_batch=self.run.loop.global_batch,
            num_parameters=self.num_parameters,
            num_dropped=self.data.train.num_dropped,
            num_frozen=self.num_frozen,
            fresh=self.start.fresh,
            unused=self.start.unused,
            skipped=progress.skipped,
        )

    def fill_loss(self) -> None:
        """Show a loss that compares with earlier samples its first ones."""
        if not self.loss.first_samples:
            return
        with closing(self.data.first_samples(self.engine.model, self.loss.first_samples)) as batches, self.engine.precision():
            self.loss.fill(batches)

    def step(self, batches: Iterator[Batch], progress: Progress, should_stop: Callable[[], bool]) -> StepDone:
        """One optimiser step over the global batch."""
        number = progress.step + 1
        begun_s = time.perf_counter()
        waited_s = 0.0
        total = torch.zeros((), device=self.device, dtype=torch.float64)
        self.engine.model.train()
        for part in range(self.data.accumulation):
            self.watch("data", number)
            wait_s = time.perf_counter()
            batch = next(batches)
            waited_s += time.perf_counter() - wait_s
            self.watch("forward", number)
            inputs = batch.inputs.to(self.device)
            inputs = inputs._replace(frames_BTCHW=augment(inputs.frames_BTCHW, inputs.draw_keys_B, self.run.data.augment))
            inputs = self.engine.model.prepared(inputs)  # once for the model and for a copy that the loss may keep
            labels_B = batch.labels_B.to(self.device)
            output = self.engine.forward(inputs)
            loss = self.loss(output, labels_B) / self.data.accumulation
            self.watch("backward", number)
            self.engine.backward(loss, last_of_step=part == self.data.accumulation - 1)
            total += loss.detach()
            with self.engine.precision():
                self.loss.observe(inputs, output, labels_B)
        self.watch("update", number)
        # one message between workers: the loss, and whether any of them is to stop
        mean_loss, stopping = self.world.mean(torch.stack([total, total.new_tensor(float(should_stop()))])).tolist()
        progress.stopping = stopping > 0
        if not math.isfinite(mean_loss):
            raise ModelError(f"step {number}: the loss is {mean_loss}; {DIVERGED}")
        lr = lr_at(self.run.optimiser, progress.step, self.total_steps)
        grad_norm = self.engine.step(lr)
        self.loss.after_step(self.engine.whole() if self.loss.follows_model else self.engine.model)
        progress.step = number
        progress.position += self.run.loop.global_batch
        progress.loss_sum += mean_loss
        progress.loss_count += 1
        took_s = time.perf_counter() - begun_s
        return StepDone(
            step=progress.step,
            position=progress.position,
            epoch=progress.position / self.epoch_length,
            loss=mean_loss,
            lr=lr,
            grad_norm=grad_norm,
            samples_per_s=self.run.loop.global_batch / took_s,
            data_wait_share=waited_s / took_s,
            gpu_memory_gib=torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else 0.0,
        )

    def ends_epoch(self, progress: Progress) -> bool:
        """Whether the last step read the last draw of an epoch."""
        length = self.epoch_length
        return progress.position // length > (progress.position - self.run.loop.global_batch) // length

    def finish_epoch(self, progress: Progress) -> EpochDone:
        """Validate, and keep the weights where they are the best so far."""
        self.watch("evaluate", progress.step)
        epoch = progress.position // self.epoch_length
        predictions = self._predict(self.engine.whole(), self.run.data.validation_split)
        validation = self._evaluate(predictions, self.run.data.validation_split)
        metric = validation.metrics.balanced_accuracy if validation else None
        is_best = metric is None or progress.best_metric is None or metric > progress.best_metric
        if is_best:
            progress.best_epoch, progress.best_metric = epoch, metric
            self.checkpoints.keep_best(self.engine.whole().state_dict())
        train_loss = progress.loss_sum / max(1, progress.loss_count)
        progress.loss_sum, progress.loss_count = 0.0, 0
        return EpochDone(epoch=epoch, step=progress.step, train_loss=train_loss, validation=validation, is_best=is_best)

    def checkpoint_due(self, progress: Progress, stop_after_step: int | None) -> bool:
        every = self.run.loop.checkpoint_every_steps
        return progress.step == stop_after_step or bool(every and progress.step % every == 0)

    def checkpoint(self, progress: Progress) -> None:
        """Copy the state, and have it written while training goes on."""
        due_s = time.perf_counter()
        self.watch("checkpoint", progress.step)
        engine_state = self.engine.state()
        record = CheckpointRecord(
            step=progress.step,
            position=progress.position,
            data_digest=self.data.manifest.digest,
            run=same_training(self.run),
            best_epoch=progress.best_epoch,
            best_metric=progress.best_metric,
            loss_sum=progress.loss_sum,
            loss_count=progress.loss_count,
        )
        state = {"engine": engine_state, "loss": self.loss.state_dict(), "torch_rng": torch.get_rng_state()}
        self.checkpoints.submit(record, state, due_s=due_s)

    def finish(self, run_id: str, progress: Progress) -> RunFinished:
        """Load the best weights, calibrate on validation, read the test split once, write the bundle."""
        self.watch("evaluate", progress.step)
        best = self.engine.whole()
        best.load_state_dict(self.checkpoints.best)
        on_validation = self._predict(best, self.run.data.validation_split)
        on_test = self._predict(best, self.run.data.test_split)
        temperature = fit_temperature(on_validation) if on_validation else 1.0
        scores_K, splits = self.data.levels.scores_K, self.run.data
        calibration = fit_calibration(on_validation, temperature, scores_K, split=splits.validation_split)
        record = BundleRecord(
            schema_version=BUNDLE_VERSION,
            run_id=run_id,
            run=self.run,
            label=self.run.data.label,
            level_names=self.data.level_names,
            level_scores=scores_K,
            temperature=temperature,
            preprocess=self.data.manifest.preprocess if FRAMES in self.engine.model.inputs else None,
            extractors=self._extractors(),
            dataset=self.data.manifest.dataset,
            simulated=self.data.manifest.simulated,
            notice=notice_of(self.data.manifest.notice, self._extractors()),
            data_digest=self.data.manifest.digest,
            commit=current_commit(),
            best_epoch=progress.best_epoch,
            validation=self._evaluate(on_validation, self.run.data.validation_split),
            test=self._evaluate(on_test, self.run.data.test_split),
            with_optional=self.data.with_optional(self.engine.model),
            calibration=calibration,
            coverage=coverage_on(on_test, temperature, scores_K, calibration, split=splits.test_split),
        )
        folder = self.run_folder / "bundle"
        if self.world.is_first:
            save_bundle(folder, record, best)
        self.world.barrier()
        return RunFinished(bundle=str(folder), best_epoch=progress.best_epoch, test=record.test)

    def _extractors(self) -> Extractors:
        """Who made the features that the model reads."""
        read = (*self.engine.model.inputs, *self.engine.model.optional)
        made_by = self.data.manifest.extractors
        return {name: made_by[name] for name in read if name != FRAMES and name in made_by}

    def _predict(self, model: EngagementModel, split: str | None) -> Predictions | None:
        """Predictions on a split; None where there is none to predict."""
        shards = self.data.held_out(split)
        if shards is None:
            return None
        return predict(
            model,
            shards,
            batch=self.run.loop.eval_batch,
            device=self.device,
            world=self.world,
            num_threads=self.run.data.num_threads,
        )

    def close(self) -> None:
        self.data.close()
        self.engine.close()

    def _evaluate(self, predictions: Predictions | None, split: str | None) -> Evaluation | None:
        if predictions is None or split is None:
            return None
        return evaluate(predictions, split=split, majority_level=self.data.majority_level)
