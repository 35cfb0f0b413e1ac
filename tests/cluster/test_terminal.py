"""What a person sees of a run."""

import io

import pytest
from rich.console import Console

from cluster.terminal import TrainingDisplay
from cluster.training_panel import LossCurve
from training.events import CheckpointFailed, CheckpointSaved, Event, RunFinished, RunStarted, StepDone, WorkersChanged

STARTED = RunStarted(run_id="r", recipe="a", start_step=0, total_steps=20, steps_per_epoch=2.0, global_batch=1, num_parameters=1)


def step(loss: float, samples_per_s: float, *, number: int = 1, gpu_memory_gib: float = 0.0) -> StepDone:
    return StepDone(
        step=number,
        position=1,
        epoch=0.1,
        loss=loss,
        lr=0.1,
        grad_norm=1.0,
        samples_per_s=samples_per_s,
        data_wait_share=0.25,
        gpu_memory_gib=gpu_memory_gib,
    )


def seen(*events: Event, width: int = 100, is_terminal: bool = True) -> str:
    """What the terminal shows in the end, colours aside: the last panel and the lines above it."""
    console = Console(file=io.StringIO(), record=True, width=width, force_terminal=is_terminal, markup=False, highlight=False)
    with TrainingDisplay(console) as display:
        for event in events:
            display(event)
    return console.export_text()


def test_the_figures_of_a_stage_are_its_own() -> None:
    text = seen(STARTED, step(9.0, 900.0), STARTED.model_copy(update={"recipe": "b"}), step(1.0, 100.0))
    assert "run r, recipe b: 1 parameters" in text
    panel = text[text.rindex("╭") :]
    assert "loss        1.000" in panel
    assert "100.0 clips/s, data wait 25%" in panel


def test_the_panel_tells_who_is_alive_what_is_safe_and_how_far_it_is() -> None:
    saved = CheckpointSaved(step=4, path="c", took_s=2.0, stall_s=0.25)
    text = seen(STARTED, WorkersChanged(alive=2, wanted=2), step(1.0, 9.0, number=5, gpu_memory_gib=3.25), saved)
    panel = text[text.rindex("╭") :]
    for said in ("run r, recipe a", "5/20 steps", "GPU memory 3.2 GiB", "2 of 2 alive", "step 4, stalled 0.25 s, 0 s ago"):
        assert said in panel
    assert all(len(line) == 100 for line in panel.strip().splitlines())


def test_a_finished_run_says_so() -> None:
    text = seen(STARTED, RunFinished(bundle="b", best_epoch=3, test=None))
    assert "finished, best epoch 3\n" in text
    assert "run r, recipe a, finished" in text[text.rindex("╭") :]


def test_without_a_clip_per_second_yet_the_panel_says_that_there_is_no_step() -> None:
    assert "no step yet" in seen(STARTED)


@pytest.mark.parametrize(("width", "is_terminal"), [(100, False), (60, True)])
def test_where_no_panel_fits_there_are_lines_alone(width: int, is_terminal: bool) -> None:
    again = STARTED.model_copy(update={"start_step": 4, "skipped": ("step-00000006",)})
    dead = WorkersChanged(alive=1, wanted=2, reason="rank 1 died")
    text = seen(
        STARTED, step(1.0, 9.0), dead, again, CheckpointFailed(step=8, reason="disk full"), width=width, is_terminal=is_terminal
    )
    assert " ".join(text.split()) == (
        "run r, recipe a: 1 parameters, 20 steps of 1 clips "
        "1 of 2 workers alive: rank 1 died "
        "run r restarted, at step 4 of 20 "
        "checkpoint step-00000006 is damaged or half written, and was passed over "
        "checkpoint of step 8 could not be written (disk full); training goes on"
    )


def test_a_loss_curve_falls_as_the_loss_does_and_stays_as_wide_as_it_may_be() -> None:
    curve = LossCurve(columns=8)
    assert str(curve) == ""
    for number in range(1000):
        curve.add(1000.0 - number)
        assert len(str(curve)) <= 8
    line = str(curve)
    assert (line[0], line[-1], list(line)) == ("█", "▁", sorted(line, reverse=True))
    assert len(line) >= 4
