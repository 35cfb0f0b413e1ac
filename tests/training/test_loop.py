"""The loop: resumed equals uninterrupted, and workers equal one process, loss for loss."""

import os
import shutil
import socket
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from data_shards.errors import ConfigError, ModelError, Stopped
from data_shards.manifest import Manifest
from data_shards.storage.shard_cache import CacheSettings
from data_shards.storage.store import LocalStore
from training.checkpoint import Checkpoints
from training.config import RunConfig, with_settings
from training.events import CheckpointFailed, EpochDone, Event, EventLog, RunFinished, RunStarted, StepDone, parse_event
from training.loop import Phase, train
from training.world import World

Shards = tuple[Path, Manifest]
LEARNING = ("loop.epochs=40", "model.widths=[8,16]", "model.hidden=16", "data.augment.flip=false", "data.augment.brightness=0")


def losses(events: list[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, StepDone)]


def run_events(run: RunConfig, shards: Shards, folder: Path, *, stop_after_step: int | None = None) -> list[Event]:
    events: list[Event] = []
    train(run, shards[0], folder, run_id="test", listeners=[events.append], stop_after_step=stop_after_step)
    return events


@pytest.mark.parametrize("stop", [1, 3, 5, 8, 9])  # an epoch is 5 steps: its edges and its middle
def test_a_stopped_run_goes_on_bit_for_bit(tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path, stop: int) -> None:
    run = with_settings(tiny_run, ["loop.epochs=2", "model.dropout=0.3"])
    whole = run_events(run, simulated_shards, tmp_path / "whole")
    first = run_events(run, simulated_shards, tmp_path / "stopped", stop_after_step=stop)
    rest = run_events(run, simulated_shards, tmp_path / "stopped")
    assert losses(first) + losses(rest) == losses(whole)
    assert next(e for e in rest if isinstance(e, RunStarted)).start_step == stop
    one, other = ((tmp_path / name / "bundle" / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert one == other


def test_a_run_that_is_asked_to_stop_writes_its_checkpoint_and_goes_on_bit_for_bit(
    tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path
) -> None:
    whole: list[Event] = []
    parts: list[Event] = []
    train(tiny_run, simulated_shards[0], tmp_path / "a", run_id="a", listeners=[whole.append])
    asked = iter([False, True])
    with pytest.raises(Stopped, match="stopped at step 2; `rapt train --resume b` goes on"):
        train(
            tiny_run, simulated_shards[0], tmp_path / "b", run_id="b", listeners=[parts.append], should_stop=lambda: next(asked)
        )
    train(tiny_run, simulated_shards[0], tmp_path / "b", run_id="b", listeners=[parts.append])
    assert losses(parts) == losses(whole)


def test_every_phase_of_a_step_is_told(tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path) -> None:
    told: list[tuple[Phase, int]] = []
    run = with_settings(tiny_run, ["loop.microbatch=4"])
    train(run, simulated_shards[0], tmp_path, run_id="a", stop_after_step=1, watch=lambda phase, step: told.append((phase, step)))
    of_a_part: list[tuple[Phase, int]] = [("data", 1), ("forward", 1), ("backward", 1)]
    assert told == [*of_a_part, *of_a_part, ("update", 1), ("checkpoint", 1)]


def test_a_damaged_newest_checkpoint_is_passed_over(tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path) -> None:
    run = with_settings(tiny_run, ["loop.epochs=2", "loop.checkpoints_kept=3"])
    whole = run_events(run, simulated_shards, tmp_path / "whole")
    run_events(run, simulated_shards, tmp_path / "run", stop_after_step=6)
    run_events(run, simulated_shards, tmp_path / "run", stop_after_step=7)
    newest = tmp_path / "run" / "checkpoints" / "step-00000007" / "state.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    rest = run_events(run, simulated_shards, tmp_path / "run")
    started = next(event for event in rest if isinstance(event, RunStarted))
    assert (started.start_step, started.skipped) == (6, ("step-00000007",))
    assert losses(rest) == losses(whole)[6:]


def test_old_checkpoints_are_pruned_and_half_ones_never_count(
    tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path
) -> None:
    run = with_settings(tiny_run, ["loop.checkpoints_kept=2"])
    for step in (1, 2, 3, 4):
        run_events(run, simulated_shards, tmp_path, stop_after_step=step)
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000003", "step-00000004"]
    (folder / "step-00000009").mkdir()
    shutil.copy(folder / "step-00000004" / "state.pt", folder / "step-00000009")
    found = Checkpoints(LocalStore(folder), kept=2, scratch=tmp_path / "scratch").find()
    assert found.record is not None
    assert (found.record.step, found.record.position, found.skipped) == (4, 32, ("step-00000009",))


def test_microbatches_add_up_to_the_global_batch(tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path) -> None:
    # without batch statistics, which a smaller microbatch changes by definition, the sums must agree
    run = with_settings(tiny_run, ["loop.precision=fp64", "model.dropout=0.2"])
    seen = []
    for microbatch in (8, 4, 2):
        folder = tmp_path / str(microbatch)
        part = with_settings(run, [f"loop.microbatch={microbatch}"])
        seen.append(losses(run_events(part, simulated_shards, folder, stop_after_step=1)))
    # the first step's loss in training mode depends on batch statistics: equal sizes of data, other groupings
    assert seen[0] == pytest.approx(seen[1], rel=0.2)
    assert seen[0] == pytest.approx(seen[2], rel=0.3)


def _worker(rank: int, world_size: int, port: int, run_json: str, data: str, folder: str, cache: Path | None) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        log = EventLog(Path(folder) / "events.jsonl") if rank == 0 else None
        listeners = [log] if log else []
        run = RunConfig.model_validate_json(run_json)
        settings = CacheSettings(cache, 1 << 30) if cache else None
        train(run, data, Path(folder), run_id="ddp", world=World(rank, world_size), listeners=listeners, cache=settings)
    finally:
        dist.destroy_process_group()


def ddp_events(
    run: RunConfig,
    shards: tuple[Path | str, Manifest],
    folder: Path,
    world_size: int,
    cache: Path | None = None,
    worker: Callable[..., None] = _worker,
) -> list[Event]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = (world_size, port, run.model_dump_json(), str(shards[0]), str(folder), cache)
    torch.multiprocessing.spawn(worker, arguments, nprocs=world_size)
    return [parse_event(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]


def _worker_apart(rank: int, world_size: int, port: int, run_json: str, data: str, folder: str, cache: Path | None) -> None:
    """A worker whose run_folder is of its own machine, and to which a warning is a fault."""
    warnings.filterwarnings("error", category=FutureWarning)
    _worker(rank, world_size, port, run_json, data, f"{folder}/{rank}", cache)


@pytest.mark.parametrize("has_bundle", [0, 1])
def test_workers_go_by_the_first_ones_bundle(
    tiny_run: RunConfig, simulated_shards: Shards, tiny_bundle: Path, tmp_path: Path, has_bundle: int
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / str(has_bundle) / "bundle")
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "0" / "events.jsonl")
    events = ddp_events(tiny_run, simulated_shards, tmp_path, 2, worker=_worker_apart)
    assert len(losses(events)) == (0 if has_bundle == 0 else 5)
    assert isinstance(events[-1], RunFinished)


@pytest.mark.parametrize("world_size", [2, 4])
def test_workers_have_the_losses_of_one_process(
    tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path, world_size: int
) -> None:
    # in float64, so that what is left of a difference would be one of arithmetic, not of rounding
    run = with_settings(tiny_run, ["loop.epochs=2", "loop.precision=fp64", "model.dropout=0.3"])
    alone = run_events(run, simulated_shards, tmp_path / "alone")
    together = ddp_events(run, simulated_shards, tmp_path / "together", world_size)
    assert len(losses(alone)) == 10
    assert losses(together) == pytest.approx(losses(alone), rel=1e-7)
    ends = [[e.validation for e in events if isinstance(e, EpochDone)] for events in (alone, together)]
    assert [e.confusion for e in ends[0] if e] == [e.confusion for e in ends[1] if e]


def test_accumulation_over_workers_equals_workers_alone(tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path) -> None:
    run = with_settings(tiny_run, ["loop.precision=fp64", "loop.microbatch=2"])
    two = ddp_events(run, simulated_shards, tmp_path / "two", 2)  # two workers, two microbatches of 2 each
    alone = with_settings(run, ["loop.microbatch=4"])
    one = run_events(alone, simulated_shards, tmp_path / "one")  # one worker, two microbatches of 4
    assert losses(two) == pytest.approx(losses(one), rel=1e-7)


def test_workers_go_on_from_what_one_process_left_and_the_first_found(
    tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path
) -> None:
    run = with_settings(tiny_run, ["loop.epochs=2", "loop.precision=fp64"])
    whole = run_events(run, simulated_shards, tmp_path / "whole")
    first = run_events(run, simulated_shards, tmp_path / "run", stop_after_step=7)
    rest = ddp_events(run, simulated_shards, tmp_path / "run", 2)
    assert [event.start_step for event in rest if isinstance(event, RunStarted)] == [7]
    assert losses(first) + losses(rest) == pytest.approx(losses(whole), rel=1e-7)
    ends = [event for event in (*whole, *rest) if isinstance(event, RunFinished)]
    assert ends[0].best_epoch == ends[1].best_epoch


def test_a_run_learns(simulated_shards: Shards, tiny_run: RunConfig, tmp_path: Path) -> None:
    run = with_settings(tiny_run, LEARNING)
    seen = losses(run_events(run, simulated_shards, tmp_path))
    assert sum(seen[-5:]) < 0.6 * sum(seen[:5])


def test_the_bundle_is_of_the_best_epoch_and_the_test_split_is_read_once(
    tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path
) -> None:
    events = run_events(with_settings(tiny_run, ["loop.epochs=3"]), simulated_shards, tmp_path)
    epochs = [event for event in events if isinstance(event, EpochDone)]
    finished = [event for event in events if isinstance(event, RunFinished)]
    best = max(e.validation.metrics.balanced_accuracy for e in epochs if e.validation)
    first_best = next(e.epoch for e in epochs if e.validation and e.validation.metrics.balanced_accuracy == best)
    assert finished[0].best_epoch == first_best
    assert sum(getattr(event, "test", None) is not None for event in events) == 1


def test_a_finished_run_is_neither_trained_nor_tested_again(
    tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path
) -> None:
    first = run_events(tiny_run, simulated_shards, tmp_path)
    weights = (tmp_path / "bundle" / "model.safetensors").stat().st_mtime_ns
    again = run_events(tiny_run, simulated_shards, tmp_path)
    assert again == [first[-1]]
    assert (tmp_path / "bundle" / "model.safetensors").stat().st_mtime_ns == weights


def test_a_checkpoint_whose_best_weights_are_lost_is_passed_over(
    tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path
) -> None:
    run = with_settings(tiny_run, ["loop.epochs=2", "loop.checkpoints_kept=3"])
    whole = run_events(run, simulated_shards, tmp_path / "whole")
    run_events(run, simulated_shards, tmp_path / "run", stop_after_step=3)
    run_events(run, simulated_shards, tmp_path / "run", stop_after_step=6)
    (tmp_path / "run" / "checkpoints" / "best-epoch-000001.safetensors").unlink()
    rest = run_events(run, simulated_shards, tmp_path / "run")
    started = next(event for event in rest if isinstance(event, RunStarted))
    assert (started.start_step, started.skipped) == (3, ("step-00000006", "step-00000005"))
    assert losses(rest) == losses(whole)[3:]


def test_pruning_never_removes_the_only_good_checkpoint(tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path) -> None:
    run = with_settings(tiny_run, ["loop.epochs=2", "loop.checkpoint_every_steps=1", "loop.checkpoints_kept=1"])
    run_events(run, simulated_shards, tmp_path, stop_after_step=4)
    newer = tmp_path / "checkpoints" / "step-00000009"
    shutil.copytree(tmp_path / "checkpoints" / "step-00000004", newer)  # damaged, and newer than what comes next
    (newer / "state.pt").write_bytes(b"")
    run_events(run, simulated_shards, tmp_path, stop_after_step=6)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step-00000006", "best-epoch-000001.safetensors"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount the small disk that this fills")
def test_a_full_disk_while_training_is_one_sentence(tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        big = with_settings(tiny_run, ["model.widths=[32,64]"])
        events: list[Event] = []
        with pytest.raises(ModelError, match=r"cannot be written .* make room, then resume the run"):  # the bundle's weights
            train(big, simulated_shards[0], tmp_path / "run", run_id="test", listeners=[events.append])
        assert len([event for event in events if isinstance(event, StepDone)]) == 5
        failed = [event for event in events if isinstance(event, CheckpointFailed)]
        assert [event.step for event in failed] == [5]
        assert "No space left on device" in failed[0].reason
        assert not list((tmp_path / "run").rglob("*partial*"))
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_workers_compute_in_bfloat16_too(tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path) -> None:
    run = with_settings(tiny_run, ["loop.precision=bf16"])
    alone = losses(run_events(run, simulated_shards, tmp_path / "alone"))
    together = losses(ddp_events(run, simulated_shards, tmp_path / "together", 2))
    assert together[:2] == pytest.approx(alone[:2], rel=0.03)


def test_other_settings_are_refused_on_resume_also_from_another_folder(
    tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "checkpoints"
    train(tiny_run, simulated_shards[0], tmp_path / "a", run_id="r", stop_after_step=2, checkpoints=elsewhere)
    other = with_settings(tiny_run, ["optimiser.lr=0.02"])
    with pytest.raises(ConfigError, match=r"was started with optimiser.lr=[0-9.]+, not 0.02"):
        train(other, simulated_shards[0], tmp_path / "b", run_id="r", checkpoints=elsewhere)
    same = with_settings(tiny_run, ["loop.checkpoint_every_steps=3", "loop.eval_batch=3"])
    assert train(same, simulated_shards[0], tmp_path / "c", run_id="r", checkpoints=elsewhere) is not None


def test_other_data_are_refused_on_resume(tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path) -> None:
    run_events(tiny_run, simulated_shards, tmp_path / "run", stop_after_step=2)
    other = tmp_path / "other"
    shutil.copytree(simulated_shards[0], other)
    manifest = (other / "manifest.json").read_text()
    (other / "manifest.json").write_text(manifest.replace('"dataset":"simulated"', '"dataset":"folder"'))
    with pytest.raises(ConfigError, match="was trained on data"):
        train(tiny_run, other, tmp_path / "run", run_id="test")


def test_a_loss_that_is_no_number_stops_the_run(tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path) -> None:
    run = with_settings(tiny_run, ["optimiser.name=sgd", "optimiser.lr=1e30", "optimiser.clip_norm=0", "loop.epochs=3"])
    with pytest.raises(ModelError, match=r"is (nan|inf); the run has diverged: start a new one"):
        train(run, simulated_shards[0], tmp_path, run_id="test")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_has_the_losses_of_the_cpu(tiny_run: RunConfig, simulated_shards: Shards, tmp_path: Path, precision: str) -> None:
    run = with_settings(tiny_run, [f"loop.precision={precision}"])
    on_cpu = losses(run_events(with_settings(run, ["loop.precision=fp32"]), simulated_shards, tmp_path / "cpu"))
    events: list[Event] = []
    train(run, simulated_shards[0], tmp_path / "gpu", run_id="gpu", device=torch.device("cuda"), listeners=[events.append])
    assert losses(events)[0] == pytest.approx(on_cpu[0], rel=1e-3 if precision == "fp32" else 3e-2)
