"""The datasets Rapt reads: a name on the command line to a function from SOURCE to a Listing.

To add one: one file with a `list_clips(source, ...) -> Listing`, and one line here.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data_shards.datasets import cmose, daisee, engagenet, engagewild, folder
from data_shards.errors import ConfigError
from data_shards.listing import Listing, Origin
from data_shards.storage.source import Source

__all__ = ["DATASETS", "list_dataset"]

# `simulated` is not read but made: `data_shards.simulation.generate` writes a folder that `folder` reads.
DATASETS: dict[str, Callable[[Source], Listing]] = {
    "daisee": daisee.list_clips,
    "cmose": cmose.list_clips,
    "engagewild": engagewild.list_clips,
    "engagenet": engagenet.list_clips,
    "folder": folder.list_clips,
    "simulated": folder.list_clips,
}


def list_dataset(name: str, source: str | Path) -> Listing:
    """The dataset of that name at `source`, a folder or s3://bucket/prefix. ConfigError where there is none of that name."""
    if name not in DATASETS:
        raise ConfigError(f"no dataset named '{name}'; there are: {', '.join(DATASETS)}")
    listing = DATASETS[name](Source(source))
    return replace(listing, origin=Origin(dataset=name, source=str(source)))
