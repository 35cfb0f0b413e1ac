"""`rapt serve` and `rapt score`."""

import json
from pathlib import Path

import click

from cluster.commands.options import emotion_option

__all__ = ["score", "serve"]


@click.command(context_settings={"show_default": True})
@click.argument("model")
@click.option("--host", default="127.0.0.1", help="Address to listen on; the default is this machine alone.")
@click.option("--port", default=8000, type=click.IntRange(1, 65535))
@click.option("--address", help="Ray cluster to serve on; one is started on this machine otherwise.")
@emotion_option
def serve(model: str, host: str, port: int, address: str | None, allow_emotion: bool) -> None:
    """Serve MODEL, a bundle's folder or models:/NAME@alias, over HTTP with a web page, until Ctrl-C.

    \b
    Examples:
        rapt serve models:/engagement@champion
        curl -F clip=@lesson.mp4 http://127.0.0.1:8000/v1/score
    """
    import os

    from cluster.home import have_face_model, mlflow_uri
    from cluster.launch import connect_ray, disconnect_ray
    from cluster.terminal import console
    from cluster.waiting import wait_for_stop
    from serving.predictor import check_servable
    from serving.service import check_port, start_service, stop_service
    from training.registry import resolve

    registered = resolve(model, mlflow_uri())
    check_servable(registered, allow_emotion=allow_emotion)
    check_port(host, port)
    have_face_model(console.print)
    connect_ray(address, num_cpus=max(4, os.cpu_count() or 1))
    with console.status("starting the endpoint"):
        url = start_service(registered, host=host, port=port, allow_emotion=allow_emotion)
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
@emotion_option
def score(model: str, files: tuple[Path, ...], transcript: Path | None, as_json: bool, allow_emotion: bool) -> None:
    """Score video FILES with MODEL, without a server; the same answer as the endpoint's.

    A file that cannot be used is named with its reason; the others are scored all the same.

    \b
    Example:
        rapt score models:/engagement@champion lesson.mp4
    """
    from cluster.home import have_face_model, mlflow_uri
    from data_shards.datasets.sidecar_files import transcript_beside
    from data_shards.errors import ClipError, ConfigError
    from serving.answer import in_words, timeline_in_words
    from serving.predictor import Predictor, check_servable
    from training.registry import resolve

    if transcript and len(files) > 1:
        raise ConfigError("--transcript is of one clip; name one FILE, or lay transcripts beside the files under their names")
    registered = resolve(model, mlflow_uri())
    check_servable(registered, allow_emotion=allow_emotion)
    have_face_model(lambda sentence: click.echo(sentence, err=True))
    predictor = Predictor(registered, allow_emotion=allow_emotion)
    if predictor.info.notice and not as_json:
        click.echo(f"what the model was trained on: {predictor.info.notice}")
    failures = 0
    for path in files:
        try:
            answer = predictor.score_file(path, transcript=transcript or transcript_beside(path))
        except ClipError as error:
            failures += 1
            click.echo(json.dumps({"file": str(path), "error": str(error)}) if as_json else f"{path}: {error}", err=not as_json)
            continue
        if as_json:
            click.echo(json.dumps({"file": str(path), **answer.model_dump(mode="json")}))
        else:
            click.echo(f"{path}: {in_words(answer)}")
            for line in timeline_in_words(answer):
                click.echo(f"  {line}")
    if failures:
        raise ClipError(f"{failures} of {len(files)} files could not be scored")
