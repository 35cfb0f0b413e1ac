"""`rapt shards cut`."""

from pathlib import Path

import click

from cluster.commands.options import seconds_of

__all__ = ["cut"]


@click.command(context_settings={"show_default": True})
@click.argument("recording", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--utterances", type=click.Path(path_type=Path), help="Cut by this transcript's time stamps (WebVTT or SRT).")
@click.option("--every", help="Cut in pieces of this length, e.g. 10s.")
@click.option(
    "--face-model",
    help="MediaPipe's face_landmarker.task. [default: RAPT_FACE_LANDMARKER, else fetched once]",
    show_default=False,
)
@click.option("--min-seconds", default=2.0, help="Leave out clips shorter than this.")
@click.option("--max-seconds", default=60.0, help="Cut longer utterances into equal parts.")
@click.option("--min-face", default=0.5, help="Share of a span in which the person's face must be seen.")
@click.option("--looks", default=2.0, help="How often a second the tiles are looked for.")
@click.option("--session", default="", help="Name of the sitting. [default: the recording's name]", show_default=False)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def cut(
    recording: Path,
    out: Path,
    utterances: Path | None,
    every: str | None,
    face_model: str | None,
    min_seconds: float,
    max_seconds: float,
    min_face: float,
    looks: float,
    session: str,
    as_json: bool,
) -> None:
    """Cut the gallery-view RECORDING of a meeting into one clip a person and utterance, in the folder OUT.

    Each person's tile is followed while the layout changes, cropped, and cut with its sound. OUT gets clips/, labels.csv
    with label and split left empty, rejects.jsonl with what was left out and why, and tiles.jpg: look at it first. Fill in
    label (0 to 3) and split, then build shards with `rapt shards build folder OUT SHARDS`.

    person0, person1, ... are names within this recording alone. Who of them speaks is not known from the picture: the
    transcript's speaker is kept as it stands. The same command run again makes only what is missing.

    \b
    Examples:
        rapt shards cut meeting.mp4 meeting-clips --utterances meeting.vtt --face-model face_landmarker.task
        rapt shards cut meeting.mp4 meeting-clips --every 10s
    """
    from pydantic import ValidationError

    from cluster.terminal import clip_progress, console
    from data_shards.errors import ConfigError
    from data_shards.face_model import face_model_path
    from data_shards.gallery.cut import cut_planned, plan_cut
    from data_shards.gallery.faces import FaceFinder
    from data_shards.gallery.plan import CutSettings
    from data_shards.schema import first_problem
    from data_shards.transcript import read_transcript

    if (utterances is None) == (every is None):
        raise ConfigError("rapt shards cut: give either --utterances transcript.vtt or --every 10s")
    try:
        settings = CutSettings.model_validate(
            {
                "every_s": None if every is None else seconds_of("--every", every),
                "min_s": min_seconds,
                "max_s": max_seconds,
                "min_face": min_face,
                "looks_per_s": looks,
            }
        )
    except ValidationError as error:
        raise ConfigError(f"rapt shards cut: {first_problem(error)}") from None
    transcript = read_transcript(utterances) if utterances else None
    with FaceFinder(face_model_path(face_model)) as finder, clip_progress("find people") as progress:
        plan = plan_cut(recording, out, finder.find, settings=settings, transcript=transcript, session=session, progress=progress)
    with clip_progress("cut clips") as progress:
        summary = cut_planned(plan, progress=progress)
    if as_json:
        click.echo(summary.to_bytes().decode(), nl=False)
        return
    sound = "with sound" if summary.has_sound else "without sound: the recording has none"
    console.print(
        f"{out}: {summary.num_clips} clips of {summary.num_people} people, {sound}; {summary.num_made} made now\n"
        f"look at {out / 'tiles.jpg'}, then fill in label and split of {summary.num_to_label} rows in {out / 'labels.csv'}"
    )
    if summary.num_left_out:
        console.print(f"{summary.num_left_out} left out, each with its reason in {out / 'rejects.jsonl'}", style="yellow")
