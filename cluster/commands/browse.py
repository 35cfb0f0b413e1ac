"""`rapt shards browse`."""

from pathlib import Path, PurePosixPath

import click

from cluster.commands.options import cache_option

__all__ = ["browse"]


@click.command(context_settings={"show_default": True})
@click.argument("uri")
@click.option("--out", type=click.Path(path_type=Path), help="The page to write. [default: URI's last name and .html, here]")
@click.option("--clips", default=200, type=click.IntRange(1, 2000), help="Clips on the page.")
@click.option("--split", help="Clips of this split alone.")
@click.option("--label", help="Spread the clips by this label, or by NAME=LEVEL take clips of that level alone.")
@cache_option
def browse(uri: str, out: Path | None, clips: int, split: str | None, label: str | None, cache_gib: float) -> None:
    """Write the shards at URI as one HTML page to look at: frames, labels, histograms, and what was left out.

    The page needs no server and loads nothing. It shows people where the clips do: give it to nobody who may not see
    the clips. Its clips are spread over splits, levels and people, and are the same on every call.

    \b
    Examples:
        rapt shards browse my-shards
        rapt shards browse my-shards --out test.html --split test --label engagement=0
    """
    from cluster.home import absolute_uri, cache_settings
    from cluster.terminal import clip_progress, console
    from data_shards.browse import write_contact_sheet

    page = out or Path(f"{PurePosixPath(absolute_uri(uri)).name}.html")
    with clip_progress("draw clips") as progress:
        sheet = write_contact_sheet(
            uri, page, num_clips=clips, split=split, label=label, cache_settings=cache_settings(cache_gib), progress=progress
        )
    size_mb = sheet.size_bytes / 1e6
    console.print(f"{sheet.path}: {sheet.num_shown:,} of {sheet.num_clips:,} clips, {size_mb:.1f} MB; open it in a browser")
