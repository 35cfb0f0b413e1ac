"""`rapt serve` and `rapt score`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.commands.options import emotion_option

if TYPE_CHECKING:
    from serving.answer import AnyAnswer, ModelInfo

__all__ = ["score", "serve"]


@click.command(context_settings={"show_default": True})
@click.argument("model")
@click.option("--host", default="127.0.0.1", help="Address to listen on; the default is this machine alone.")
@click.option("--port", default=8000, type=click.IntRange(1, 65535))
@click.option("--address", help="Ray cluster to serve on; one is started on this machine otherwise.")
@click.option("--require-keys", is_flag=True, help="Refuse who has no API key, although none was made; always so off loopback.")
@click.option(
    "--allow-origin", "origins", multiple=True, metavar="ORIGIN", help="Let pages of https://HOST call it; may be repeated."
)
@emotion_option
def serve(
    model: str, host: str, port: int, address: str | None, require_keys: bool, origins: tuple[str, ...], allow_emotion: bool
) -> None:
    """Serve MODEL, a bundle's folder or models:/NAME@alias, over HTTP with a web page, until Ctrl-C.

    \b
    Examples:
        rapt serve models:/engagement@champion
        curl -F clip=@lesson.mp4 http://127.0.0.1:8000/v1/score
    """
    import os

    from cluster.home import keys_file, mlflow_uri, serving_folder
    from cluster.launch import connect_ray, disconnect_ray
    from cluster.terminal import console
    from cluster.waiting import wait_for_stop
    from serving.predictor import check_servable
    from serving.service import check_port, start_service, stop_service
    from serving.settings import AppSettings
    from training.registry import resolve

    registered = resolve(model, mlflow_uri())
    check_servable(registered, allow_emotion=allow_emotion)
    check_port(host, port)
    app = AppSettings.of_endpoint(
        host, keys_file=keys_file(), audit_folder=serving_folder(), require_keys=require_keys, cors_origins=origins
    )
    connect_ray(address, num_cpus=max(4, os.cpu_count() or 1))
    with console.status("starting the endpoint"):
        url = start_service(registered, host=host, port=port, allow_emotion=allow_emotion, app=app)
    version = f" version {registered.version}" if registered.version else ""
    console.print(f"{registered.name}{version} answers at {url} (page), {url}/v1/score (clips); Ctrl-C stops it")
    wait_for_stop()
    stop_service()
    disconnect_ray()


@click.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--transcript",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What is said in FILE; else a .vtt or .srt of its name, beside it or in a folder transcripts beside its folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a file.")
@click.option("--key", envvar="RAPT_KEY", help="API key, where MODEL is an endpoint that wants one; better in RAPT_KEY.")
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM certificate of an endpoint whose own the system does not know.",
)
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
    from serving.answer import Answer

    if transcript and len(files) > 1:
        raise ConfigError("--transcript is of one clip; name one FILE, or lay transcripts beside the files under their names")
    info, score_file = _scorer(model, key=key, ca=ca, allow_emotion=allow_emotion)
    if info.notice and not as_json:
        click.echo(f"what the model was trained on: {info.notice}")
    failures = 0
    for path in files:
        try:
            answer = score_file(path, transcript or transcript_beside(path))
        except ClipError as error:
            failures += 1
            click.echo(json.dumps({"file": str(path), "error": str(error)}) if as_json else f"{path}: {error}", err=not as_json)
            continue
        if as_json:
            click.echo(json.dumps({"file": str(path), **answer.model_dump(mode="json")}))
        elif not isinstance(answer, Answer):
            click.echo(f"{path}: {answer.status.replace('_', ' ')}, so no score")
        else:
            chances = ", ".join(f"{name} {chance:.0%}" for name, chance in answer.probabilities.items())
            click.echo(f"{path}: {answer.level}, score {answer.score:+.2f} ({chances})")
    if failures:
        raise ClipError(f"{failures} of {len(files)} files could not be scored")


def _scorer(
    model: str, *, key: str | None, ca: Path | None, allow_emotion: bool
) -> "tuple[ModelInfo, Callable[[Path, Path | None], AnyAnswer]]":
    """What answers, and what scores a file and its transcript: an endpoint, or a predictor in this process."""
    if model.startswith(("http://", "https://")):
        from serving.client import Client

        client = Client(model, key, verify=ca)
        return client.model(), client.score
    from cluster.home import mlflow_uri
    from serving.predictor import Predictor
    from training.registry import resolve

    predictor = Predictor(resolve(model, mlflow_uri()), allow_emotion=allow_emotion)
    return predictor.info, lambda path, transcript: predictor.score_file(path, transcript=transcript)
