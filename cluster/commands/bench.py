"""`rapt shards bench`."""

import click

from cluster.commands.options import cache_option

__all__ = ["bench"]


@click.command(context_settings={"show_default": True})
@click.argument("uri")
@click.option("--split", help="The split to read. [default: the first]")
@click.option("--threads", default=2, type=click.IntRange(1, 64), help="Threads that decode.")
@click.option("--seconds", default=5.0, type=click.FloatRange(0.1, 3600), help="How long each of the two readings takes.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@cache_option
def bench(uri: str, split: str | None, threads: int, seconds: float, as_json: bool, cache_gib: float) -> None:
    """Measure how fast the shards at URI are read here: as stored, decoded, and until the first batch.

    \b
    Example:
        rapt shards bench demo-shards --seconds 2
    """
    from cluster.home import absolute_uri, cache_settings
    from cluster.terminal import clip_progress, console
    from data_shards.manifest import read_manifest
    from data_shards.reading.read_speed import measure_read_speed

    place = absolute_uri(uri)
    chosen = split or next(iter(read_manifest(place).splits))
    with clip_progress("read shards") as progress:
        speed = measure_read_speed(
            place, split=chosen, num_threads=threads, seconds=seconds, cache=cache_settings(cache_gib), progress=progress
        )
    if as_json:
        click.echo(speed.model_dump_json())
        return
    console.print(f"{uri}, {speed.split}: {speed.num_samples} samples, {threads} threads")
    console.print(f"  manifest read in {speed.open_s:.3f} s, first batch of 8 after {speed.first_batch_s:.3f} s")
    console.print(f"  as stored {speed.stored_samples_per_s:,.0f} samples/s, {speed.stored_bytes_per_s / 2**20:,.0f} MiB/s")
    console.print(f"  decoded   {speed.decoded_samples_per_s:,.1f} samples/s")
