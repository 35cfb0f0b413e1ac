"""What a person sees of a run."""

from cluster.terminal import TrainingDisplay, progress_console
from training.events import RunStarted, StepDone


def step(loss: float, samples_per_s: float) -> StepDone:
    return StepDone(
        step=1,
        position=1,
        epoch=0.1,
        loss=loss,
        lr=0.1,
        grad_norm=1.0,
        samples_per_s=samples_per_s,
        data_wait_share=0.0,
    )


def test_the_figures_of_a_stage_are_its_own() -> None:
    started = RunStarted(
        run_id="r", recipe="a", start_step=0, total_steps=2, steps_per_epoch=2.0, global_batch=1, num_parameters=1
    )
    with progress_console.capture() as shown, TrainingDisplay() as display:
        for event in (started, step(9.0, 900.0), started.model_copy(update={"recipe": "b"}), step(1.0, 100.0)):
            display(event)
    text = shown.get()
    assert "run r, recipe b: 1 parameters" in text
    assert "loss 1.000  100.0 clips/s" in text
