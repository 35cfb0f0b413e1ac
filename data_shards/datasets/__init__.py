"""The datasets Rapt reads: a name on the command line to a function from SOURCE to a Listing.

To add one: one file with a `list_clips(source, ...) -> Listing`, and one line here.
"""

from collections.abc import Callable

from data_shards.datasets import cmose, daisee, engagenet, engagewild, folder
from data_shards.listing import Listing
from data_shards.storage.source import Source

__all__ = ["DATASETS"]

# `simulated` is not read but made: `data_shards.simulation.generate` writes a folder that `folder` reads.
DATASETS: dict[str, Callable[[Source], Listing]] = {
    "daisee": daisee.list_clips,
    "cmose": cmose.list_clips,
    "engagewild": engagewild.list_clips,
    "engagenet": engagenet.list_clips,
    "folder": folder.list_clips,
    "simulated": folder.list_clips,
}
