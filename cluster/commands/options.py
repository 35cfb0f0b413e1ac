"""Options that several commands share."""

import click

__all__ = ["cache_option"]

cache_option = click.option(
    "--cache-gib",
    default=20.0,
    type=click.FloatRange(min=0.01),
    help="Room for shards fetched from a bucket, below RAPT_HOME, in GiB.",
)
