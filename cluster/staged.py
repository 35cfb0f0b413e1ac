"""A job in stages: one run after another, each from the best weights of the one before. Only the last one's bundle counts.

.rapt/runs/RUN/run.json      the stages, as they were started
.rapt/runs/RUN/1-RECIPE/     the first stage's run, and so on
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.job import JobResult, TrainingJob, job_again, job_tags, stored_run, understanding, write_run_json
from data_shards.manifest import read_manifest
from training.check import check_stages
from training.config import RunConfig
from training.tracking.client import check_tracking_uri
from training.tracking.entries import ending_by
from training.tracking.parent import ParentRun, has_been_told

__all__ = ["StagedJob", "is_staged", "load_staged_job", "run_staged"]

Launch = Callable[[TrainingJob], JobResult | None]


@dataclass(frozen=True, kw_only=True)
class StagedJob:
    """recipe: the staged recipe's name; runs: the stages; job: what they share, its run the last stage's."""

    recipe: str
    runs: tuple[RunConfig, ...]
    job: TrainingJob

    def stage(self, number: int) -> TrainingJob:
        """Stage `number`, from 0, as a job of its own that starts from the bundle of the one before."""
        run = self.runs[number]
        if number:
            run = run.model_copy(update={"starts_from": str(self._folder(number - 1) / "bundle")})
        return replace(
            self.job,
            run=run,
            run_folder=self._folder(number),
            stage=self._folder(number).name,
            parent=self.job.run_id,
            tags={"stage": f"{number + 1} of {len(self.runs)}"},
            registers=number == len(self.runs) - 1,
        )

    def is_done(self, number: int) -> bool:
        """Whether stage `number` has its bundle."""
        return (self._folder(number) / "bundle" / "run.json").exists()

    def _folder(self, number: int) -> Path:
        return self.job.run_folder / f"{number + 1}-{self.runs[number].recipe}"


def run_staged(staged: StagedJob, launch: Launch, *, notify: Callable[[str], None] = lambda sentence: None) -> JobResult | None:
    """Train the stages that are not done yet; the last one's result, None where `launch` gives none of a stage.

    MLflow gets one run for the whole and one below it for each stage. A stage that is done is not trained again, so a
    job that was stopped goes on where it was. A setting that some stage cannot have is refused before anything starts.
    notify: gets a sentence where records of the whole wait for MLflow.
    """
    job = staged.job
    check_tracking_uri(job.mlflow_uri)
    if not (job.run_folder / "run.json").exists():
        check_stages(staged.runs, job.data, workers=job.sizes()[-1], cache=job.cache)
    for run in staged.runs:
        replace(job, run=run).sizes()  # a resumed job may have other workers
    stages = [run.model_dump(mode="json") for run in staged.runs]
    manifest = read_manifest(job.data)
    write_run_json(job, {"recipe": staged.recipe, "stages": stages}, digest=manifest.digest)
    tags = job_tags(job, manifest) | {"recipe": staged.recipe, "stages": ", ".join(run.recipe for run in staged.runs)}
    parent = ParentRun(
        job.mlflow_uri, name=job.run_id, tags=tags, run_folder=job.run_folder, settings=job.tracking, notify=notify
    )
    try:
        result = _launch_in_turn(staged, launch)
        if result is not None:
            parent.take_over(result.bundle)
    except BaseException as error:
        parent.close(ending_by(error))
        raise
    parent.close("FINISHED" if result else ending_by(None))
    return result


def _launch_in_turn(staged: StagedJob, launch: Launch) -> JobResult | None:
    result = None
    for number in range(len(staged.runs)):
        stage = staged.stage(number)
        is_last = number == len(staged.runs) - 1
        if not is_last and staged.is_done(number) and has_been_told(stage.run_folder):
            continue  # one that is done but was stopped before all was told is told once more, not trained
        result = launch(stage)
        if result is None:
            return None
    return result


def is_staged(run_folder: Path) -> bool:
    """Whether the run that lies there has stages."""
    return "stages" in stored_run(run_folder)


def load_staged_job(run_folder: Path, *, data: str | None, mlflow_uri: str) -> StagedJob:
    """The staged job of an earlier run, to resume it; its own data, unless the same lie elsewhere now."""
    content = stored_run(run_folder)
    with understanding(run_folder):
        runs = tuple(RunConfig.model_validate(stage) for stage in content["stages"])
        job = job_again(content, runs[-1], run_folder, data=data, mlflow_uri=mlflow_uri)
        return StagedJob(recipe=str(content["recipe"]), runs=runs, job=job)
