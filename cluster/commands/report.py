"""`rapt report`."""

from pathlib import Path

import click

from cluster.commands.options import emotion_option, seconds_of

__all__ = ["report"]


@click.command(context_settings={"show_default": True})
@click.argument("model")
@click.argument("lesson", type=click.Path(path_type=Path))
@click.option("--out", default=Path("report.html"), type=click.Path(path_type=Path), help="The report to write.")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Also write a table, one row a person and window.")
@click.option("--window", default="10s", help="How long the parts are that are scored by themselves, from 2s to 10m.")
@click.option("--pictures", is_flag=True, help="Put a small frame beside each moment: the file then shows people.")
@click.option(
    "--face-model",
    type=click.Path(path_type=Path),
    help="MediaPipe's face_landmarker.task. [default: RAPT_FACE_LANDMARKER, else fetched once]",
    show_default=False,
)
@click.option("--json", "as_json", is_flag=True, help="Print the lesson's numbers as JSON.")
@emotion_option
def report(
    model: str,
    lesson: Path,
    out: Path,
    table: Path | None,
    window: str,
    pictures: bool,
    face_model: Path | None,
    as_json: bool,
    allow_emotion: bool,
) -> None:
    """Score the recording LESSON with MODEL, person by person, and write one HTML file that a teacher reads.

    Each person's tile in the recording is followed, and each of its windows is scored. The file needs no server, loads
    nothing and holds numbers alone: no picture, no sound, no name. With --pictures it shows people: give it to nobody who
    may not see the recording.

    \b
    Examples:
        rapt report models:/engagement@champion lesson.mp4
        rapt report models:/engagement@champion lesson.mp4 --out monday.html --csv monday.csv --window 30s
    """
    from cluster.home import mlflow_uri
    from cluster.lesson_scoring import score_recording
    from cluster.terminal import clip_progress, console, counted
    from data_shards.atomic import write_whole
    from data_shards.errors import ClipError
    from serving.report import lesson_csv, lesson_page
    from serving.report.pictures import moment_pictures
    from training.registry import resolve

    window_s = seconds_of("--window", window)
    registered = resolve(model, mlflow_uri())
    with clip_progress("seconds of the lesson") as progress:
        result = score_recording(
            lesson,
            registered,
            window_s=window_s,
            face_model=face_model,
            allow_emotion=allow_emotion,
            progress=lambda done_s, total_s: progress(int(done_s), int(total_s)),
        )
    try:
        frames = moment_pictures(lesson, result.moments) if pictures else None
    except ClipError as error:  # what passes over damaged pieces may have scored it all the same: hours are not thrown away
        frames = None
        click.echo(f"the report has no pictures: {error}", err=True)
    write_whole(out, lesson_page(result, pictures=frames).encode(errors="replace"))
    if table:
        write_whole(table, lesson_csv(result).encode(errors="replace"))
    if as_json:
        click.echo(result.to_bytes().decode(), nl=False)
        return
    people = counted(len(result.people), "person", "people")
    if result.model.notice:
        console.print(f"what the model was trained on: {result.model.notice}", style="yellow")
    console.print(f"{out}: {people} in {result.duration_s:.0f} s, read in {result.took_s:.0f} s; open it in a browser")
    if table:
        console.print(f"{table}: one row a person and window")
