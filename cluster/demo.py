"""The demo: every part of Rapt in order, on simulated clips, on this machine."""

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from pydantic import TypeAdapter

from cluster.commands.shards import listing_of
from cluster.home import audits_folder, home, mlflow_uri, new_run_id, run_folder, shown
from cluster.job import JobResult, TrainingJob
from cluster.launch import connect_ray, disconnect_ray, run_on_ray
from cluster.terminal import TrainingDisplay, clip_progress, console, evaluation_table
from cluster.waiting import wait_for_stop
from data_shards.atomic import write_whole
from data_shards.audit import audit_shards
from data_shards.building.build import build_shards
from data_shards.errors import ServiceError
from data_shards.listing import ENGAGEMENT_LEVELS, ListedClip, Listing
from data_shards.preprocess import PreprocessConfig
from serving.answer import AnyAnswer, in_words
from serving.service import check_port, start_service, stop_service
from training.bundle import BundleRecord, read_record
from training.config import with_settings
from training.promotion import Gate, known_audit, promote
from training.recipes import recipe
from training.registry import resolve

__all__ = ["DEMO_PREPROCESS", "run_demo"]

DEMO_PREPROCESS = PreprocessConfig(num_frames=32, size_px=64)
_HOST = "127.0.0.1"


def run_demo(*, clips: int, workers: int, port: int, settings: Sequence[str], keep_serving: bool) -> None:
    """Clips, shards, training, registry, endpoint, two scores; prints held-out figures beside the majority baseline."""
    begun_s = time.perf_counter()
    run = with_settings(recipe("demo"), settings)
    check_port(_HOST, port)
    connect_ray(None, num_cpus=max(os.cpu_count() or 1, workers + 2))

    console.rule("1  simulated clips")
    cores = os.cpu_count() or 1
    listing = listing_of("simulated", str(clips), seed=0, balance="uniform", workers=cores)

    console.rule("2  shards")
    shards = home() / "shards" / f"demo-{clips}"
    with clip_progress("build shards") as progress:
        manifest = build_shards(listing, shards, preprocess=DEMO_PREPROCESS, num_workers=cores, progress=progress)
    console.print(f"{len(manifest.shards)} shards, digest {manifest.digest[:16]}, in {shown(shards)}")
    console.print(_audit(shards, manifest.digest))

    console.rule(f"3  train with {workers} Ray Train workers")
    run_id = new_run_id("demo")
    job = TrainingJob(
        run=run, data=str(shards), run_id=run_id, run_folder=run_folder(run_id), mlflow_uri=mlflow_uri(), workers=workers
    )
    with TrainingDisplay() as display:
        result = run_on_ray(job, display)

    console.rule("4  serve the champion")
    console.print(_crown(run_id))
    with console.status("starting the endpoint"):
        url = start_service(resolve("models:/engagement@champion", mlflow_uri()), host=_HOST, port=port)
    _ask_for_scores(url, listing)

    console.rule("what came out")
    record = read_record(result.bundle)
    _print_result(record, result, url, keep_serving)
    console.print(f"the demo took {time.perf_counter() - begun_s:.0f} s")
    if keep_serving:
        wait_for_stop()
    stop_service()
    disconnect_ray()


def _audit(shards: Path, digest: str) -> str:
    """Look for leaks between the splits, once for the same clips: the gate before the champion asks for it."""
    audits = audits_folder()
    audit = known_audit(audits, digest)
    if audit is None:
        with console.status("looking for leaks between the splits"):
            audit = audit_shards(shards)
        write_whole(audits / f"{digest}.json", audit.to_bytes())
    return f"audit: {audit.num_leaks} leaks, {len(audit.findings) - audit.num_leaks} warnings"


def _crown(run_id: str) -> str:
    """Make the run's model the champion if it passes the gate; an earlier demo's better model stays. Says what was done."""
    promotion = promote(mlflow_uri(), run_id, alias="champion", gate=Gate(audits=audits_folder()))
    checks = "\n".join(str(check) for check in promotion.checks)
    if promotion.passed:
        return f"{checks}\nmodels:/engagement@champion is version {promotion.version}"
    return f"{checks}\nthe champion stays: version {promotion.version} does not pass"


def _ask_for_scores(url: str, listing: Listing) -> None:
    """Score two clips of people the model never saw, of the lowest and the highest level, over HTTP."""
    for level in (0, len(ENGAGEMENT_LEVELS) - 1):
        video = _some_test_clip(listing, level).video
        assert video is not None, "simulated clips are videos"
        name = Path(video.name).name
        try:
            with video.local() as path, path.open("rb") as file:
                answer = httpx.post(f"{url}/v1/score", files={"clip": (name, file)}, timeout=120)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise ServiceError(f"{url}/v1/score: no score for {name} ({error}); look at Ray's logs") from None
        said = in_words(TypeAdapter[AnyAnswer](AnyAnswer).validate_json(answer.content))
        console.print(f"{name} (simulated, made as '{ENGAGEMENT_LEVELS[level]}'): {said}")


def _some_test_clip(listing: Listing, level: int) -> ListedClip:
    candidates = [clip for clip in listing.clips if clip.split == "test" and clip.labels["engagement"] == level]
    return random.Random(level).choice(candidates)  # noqa: S311  # which clip is shown is no secret


def _print_result(record: BundleRecord, result: JobResult, url: str, keep_serving: bool) -> None:
    if record.test:
        console.print(evaluation_table(record.test, title="held-out simulated people (chance is 0.25 balanced accuracy)"))
    console.print(record.notice, style="yellow")
    console.print(f"run {record.run_id}, engagement version {result.version}; bundle {shown(result.bundle)}")
    console.print(_where_mlflow_is())
    if keep_serving:
        console.print(f"the endpoint and its page: {url} (Ctrl-C stops it)")
    else:
        console.print("open the page: rapt serve models:/engagement@champion, then http://127.0.0.1:8000")


def _where_mlflow_is() -> str:
    uri = mlflow_uri()
    if not uri.startswith("sqlite:///"):
        return f"MLflow: {uri}"
    database = Path(uri.removeprefix("sqlite:///"))
    page = f"mlflow ui --backend-store-uri sqlite:///{shown(database)}"
    return f"MLflow data: {shown(database.parent)}; its page: {page}, then http://127.0.0.1:5000"
