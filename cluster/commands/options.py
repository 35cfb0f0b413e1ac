"""Options that several commands share."""

import click

__all__ = ["cache_option", "emotion_option"]

cache_option = click.option(
    "--cache-gib",
    default=20.0,
    type=click.FloatRange(min=0.01),
    help="Room for shards fetched from a bucket, below RAPT_HOME, in GiB.",
)

emotion_option = click.option(
    "--allow-emotion", is_flag=True, help="Let a model that names an emotion answer, where the law allows that."
)
