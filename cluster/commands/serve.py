"""`rapt serve` and `rapt score`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.commands.options import emotion_option

if TYPE_CHECKING:
    from serving.answer import AnyAnswer, ModelInfo

__all__ = ["score", "serve"]


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(context_settings={"show_default": True})
@click.argument("model")
@click.option("--host", default="127.0.0.1", help="Address to listen on; the default is this machine alone.")
@click.option("--port", default=8000, type=click.IntRange(1, 65535))
@click.option("--tls-cert", type=_FILE, help="Certificate, PEM: the endpoint then speaks HTTPS alone.")
@click.option("--tls-key", type=_FILE, help="Its key, PEM, unencrypted; refused where every user of the machine can read it.")
@click.option("--insecure", is_flag=True, help="Speak plain HTTP on another address than loopback: something before it has TLS.")
@click.option(
    "--watch-s", default=10.0, type=click.FloatRange(min=0, min_open=True), help="How often to look who holds the alias."
)
@click.option("--challenger", default="", metavar="MODEL", help="Score some clips with it too, beside the answer, and compare.")
@click.option("--shadow", default=0.1, type=click.FloatRange(0, 1), help="Share of the scored clips that the challenger gets.")
@click.option("--batch-size", default=8, type=click.IntRange(1, 256), help="Most clips that the model takes at once.")
@click.option("--batch-wait-ms", default=0.0, type=click.FloatRange(0, 1000), help="How long a clip waits for others besides.")
@click.option(
    "--drain-s", default=60.0, type=click.FloatRange(min=0), help="How long requests under way are waited for at the end."
)
@click.option(
    "--keep-results-h", default=24.0, type=click.FloatRange(min=0, min_open=True), help="Hours that a lesson's numbers are kept."
)
@click.option("--address", help="Ray cluster to serve on; one is started on this machine otherwise.")
@click.option("--require-keys", is_flag=True, help="Refuse who has no API key, although none was made; always so off loopback.")
@click.option(
    "--allow-origin", "origins", multiple=True, metavar="ORIGIN", help="Let pages of https://HOST call it; may be repeated."
)
@emotion_option
def serve(
    model: str,
    host: str,
    port: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    insecure: bool,
    watch_s: float,
    challenger: str,
    shadow: float,
    batch_size: int,
    batch_wait_ms: float,
    drain_s: float,
    keep_results_h: float,
    address: str | None,
    require_keys: bool,
    origins: tuple[str, ...],
    allow_emotion: bool,
) -> None:
    """Serve MODEL, a bundle's folder or models:/NAME@alias, over HTTP with a web page, until Ctrl-C.

    The alias is followed: a new version is tried beside the one that answers, then takes its place, and no request fails.
    Ctrl-C or SIGTERM ends it in good order, requests under way answered; a second one at once.

    \b
    Examples:
        rapt serve models:/engagement@champion
        rapt serve models:/engagement@champion --challenger models:/engagement@challenger --shadow 0.1
        rapt serve models:/engagement@champion --host 0.0.0.0 --port 8443 --tls-cert cert.pem --tls-key key.pem
        curl -F clip=@lesson.mp4 http://127.0.0.1:8000/v1/score
    """
    import os

    from cluster.home import have_face_model, keys_file, mlflow_uri, serving_folder
    from cluster.launch import connect_ray, disconnect_ray
    from cluster.terminal import console
    from cluster.waiting import wait_for_stop
    from data_shards.errors import ConfigError, ServiceError
    from serving.access.keys import read_keys
    from serving.http.settings import AppSettings
    from serving.jobs.record import JobLimits
    from serving.jobs.store import claim
    from serving.predictor import check_servable
    from serving.replicas.endpoint_settings import EndpointSettings, TlsFiles, check_exposure
    from serving.service import check_port, drain_service, service_state, start_service, stop_service
    from training.registry import resolve

    if (tls_cert is None) != (tls_key is None):
        raise ConfigError("--tls-cert and --tls-key belong together; give both, or neither")
    tls = TlsFiles(tls_cert, tls_key) if tls_cert and tls_key else None
    check_exposure(host, tls, insecure=insecure)
    registered = resolve(model, mlflow_uri())
    check_servable(registered, allow_emotion=allow_emotion)
    check_port(host, port)
    app = AppSettings.of_endpoint(
        host,
        keys_file=keys_file(),
        audit_folder=serving_folder(),
        require_keys=require_keys,
        cors_origins=origins,
        tls=tls is not None,
    )
    jobs_folder = serving_folder() / "jobs"
    takes_lessons = claim(jobs_folder) is not None  # until this process ends
    settings = EndpointSettings(
        model=_absolute(model),
        tracking_uri=mlflow_uri(),
        allow_emotion=allow_emotion,
        watch_s=watch_s,
        challenger=_absolute(challenger) if challenger else "",
        shadow_share=shadow,
        batch_size=batch_size,
        batch_wait_ms=batch_wait_ms,
        drain_s=drain_s,
        app=app,
        jobs_folder=jobs_folder if takes_lessons else None,
        jobs=JobLimits(keep_results_s=keep_results_h * 3600),
    )
    have_face_model(lambda sentence: click.echo(sentence, err=True))
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 lets any other program of the machine hold up requests
    connect_ray(address, num_cpus=max(4, os.cpu_count() or 1))
    with console.status("starting the endpoint") as status:
        url = start_service(registered, host=host, port=port, settings=settings, tls=tls, progress=status.update)
    version = f" version {registered.version}" if registered.version else ""
    console.print(f"{registered.name}{version} answers at {url} (page), {url}/v1/score (clips); Ctrl-C stops it")
    console.print(service_state().held, style="dim")
    if not takes_lessons:
        console.print("it takes no lessons: another endpoint has those of this RAPT_HOME; give each its own", style="yellow")
    if app.require_keys and not read_keys(keys_file()).keys:
        console.print("nobody has a key yet, so nobody is answered: `rapt keys create NAME` makes one", style="yellow")
    wait_for_stop(_teller())
    with console.status("answering requests under way; Ctrl-C again ends at once"):
        try:
            stopping = drain_service(settings)
        except ServiceError:  # it goes all the same, from a cluster that others use too
            stop_service()
            raise
        stop_service()
        disconnect_ray()
    if stopping.summary:
        console.print(stopping.summary)
    left = (
        f"{stopping.num_left} requests were given up after {drain_s:g} s" if stopping.num_left else "every request was answered"
    )
    console.print(f"the endpoint has stopped; {left}")


def _absolute(model: str) -> str:
    return model if model.startswith("models:/") else str(Path(model).absolute())


def _teller() -> Callable[[], None]:
    """What prints a sentence whenever another version answers, or something should be mended."""
    from cluster.terminal import console
    from data_shards.errors import ServiceError
    from serving.service import service_state

    told = None

    def tell() -> None:
        nonlocal told
        try:
            state = service_state()
        except ServiceError as error:
            console.print(str(error), style="yellow")
            return
        if told is not None and state.model != told.model:
            console.print(f"{state.model} answers now")
        if state.warning and (told is None or state.warning != told.warning):
            console.print(state.warning, style="yellow")
        told = state

    return tell


@click.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--transcript",
    type=_FILE,
    help="What is said in FILE; else a .vtt or .srt of its name, beside it or in a folder transcripts beside its folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a file.")
@click.option("--key", envvar="RAPT_KEY", help="API key, where MODEL is an endpoint that wants one; better in RAPT_KEY.")
@click.option("--ca", type=_FILE, help="PEM certificate of an endpoint whose own the system does not know.")
@emotion_option
def score(
    model: str,
    files: tuple[Path, ...],
    transcript: Path | None,
    as_json: bool,
    key: str | None,
    ca: Path | None,
    allow_emotion: bool,
) -> None:
    """Score video FILES with MODEL: without a server, or by an endpoint where MODEL is its address. The answers are the same.

    A file that cannot be used is named with its reason; the others are scored all the same.

    \b
    Examples:
        rapt score models:/engagement@champion lesson.mp4
        RAPT_KEY=rapt_... rapt score https://rapt.example:8000 lesson.mp4
    """
    from data_shards.datasets.sidecar_files import transcript_beside
    from data_shards.errors import ClipError, ConfigError
    from serving.answer import in_words, timeline_in_words

    if transcript and len(files) > 1:
        raise ConfigError("--transcript is of one clip; name one FILE, or lay transcripts beside the files under their names")
    with _scorer(model, key=key, ca=ca, allow_emotion=allow_emotion) as (info, score_file):
        if info.notice and not as_json:
            click.echo(f"what the model was trained on: {info.notice}")
        failures = 0
        for path in files:
            try:
                answer = score_file(path, transcript or transcript_beside(path))
            except ClipError as error:
                failures += 1
                said = json.dumps({"file": str(path), "error": str(error)}) if as_json else f"{path}: {error}"
                click.echo(said, err=not as_json)
                continue
            if as_json:
                click.echo(json.dumps({"file": str(path), **answer.model_dump(mode="json")}))
            else:
                click.echo(f"{path}: {in_words(answer)}")
                for line in timeline_in_words(answer):
                    click.echo(f"  {line}")
    if failures:
        raise ClipError(f"{failures} of {len(files)} files could not be scored")


@contextmanager
def _scorer(
    model: str, *, key: str | None, ca: Path | None, allow_emotion: bool
) -> "Iterator[tuple[ModelInfo, Callable[[Path, Path | None], AnyAnswer]]]":
    """What answers, and what scores a file and its transcript: an endpoint, or a predictor in this process."""
    if model.startswith(("http://", "https://")):
        from serving.client import Client

        with Client(model, key, verify=ca) as client:
            yield client.model(), client.score
        return
    from cluster.home import have_face_model, mlflow_uri
    from serving.predictor import Predictor, check_servable
    from training.registry import resolve

    registered = resolve(model, mlflow_uri())
    check_servable(registered, allow_emotion=allow_emotion)
    have_face_model(lambda sentence: click.echo(sentence, err=True))
    predictor = Predictor(registered, allow_emotion=allow_emotion)
    yield predictor.info, lambda path, transcript: predictor.score_file(path, transcript=transcript)
