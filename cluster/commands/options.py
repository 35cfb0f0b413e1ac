"""Options that several commands share, and what they stand for."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from data_shards.building.shard_work import WriteShards

__all__ = ["cache_option", "emotion_option", "job_address_option", "seconds_of", "shard_writer"]

cache_option = click.option(
    "--cache-gib",
    default=20.0,
    type=click.FloatRange(min=0.01),
    help="Room for shards fetched from a bucket, below RAPT_HOME, in GiB.",
)

emotion_option = click.option(
    "--allow-emotion", is_flag=True, help="Let a model that names an emotion answer, where the law allows that."
)

job_address_option = click.option(
    "--address",
    metavar="URL",
    help="The cluster's dashboard, http://HOST:8265. [default: RAPT_RAY_ADDRESS, RAY_ADDRESS, or the one of `rapt cluster up`]",
)


def seconds_of(option: str, text: str) -> float:
    """`10s`, `10` or `1.5m` as seconds; ConfigError, which names the option, on anything else."""
    from data_shards.errors import ConfigError

    match = re.fullmatch(r"(\d{1,5}(?:\.\d{1,3})?)\s*(s|m)?", text.strip(), flags=re.ASCII)
    if match is None:
        raise ConfigError(f"{option} {text[:40]}: not a length of time; e.g. {option} 10s")
    return float(match[1]) * (60 if match[2] == "m" else 1)


@contextmanager
def shard_writer(address: str | None) -> "Iterator[WriteShards]":
    """How shards get written: by processes of this machine, or by the Ray cluster at `address`."""
    if address is None:
        from data_shards.building.shard_pool import write_in_processes

        yield write_in_processes
        return
    from cluster.launch import connect_ray, disconnect_ray

    connect_ray(address, num_cpus=os.cpu_count() or 1)
    from cluster.ray_build import write_on_ray

    try:
        yield write_on_ray
    finally:
        disconnect_ray()
