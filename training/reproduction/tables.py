"""The tables by name. To add one: a function as below, which makes a Table, and one line in TABLES."""

from collections.abc import Sequence
from typing import Protocol

from data_shards.errors import ConfigError
from data_shards.storage.shard_cache import CacheSettings
from training.reproduction.cmose_tables import cmose_losses, cmose_parts
from training.reproduction.engagewild_table import engagewild_table
from training.reproduction.row_pool import Progress
from training.reproduction.table import Table

__all__ = ["TABLES", "MakeTable", "table_named"]


class MakeTable(Protocol):
    """Runs the rows named, all where none is, each from seeds 0 to num_seeds - 1, on the shards at `uri`."""

    def __call__(
        self, uri: str, *, num_seeds: int, rows: Sequence[str], cache: CacheSettings | None, num_workers: int, progress: Progress
    ) -> Table: ...


TABLES: dict[str, MakeTable] = {
    "engagewild": engagewild_table,
    "cmose_losses": cmose_losses,
    "cmose_parts": cmose_parts,
}


def table_named(name: str) -> MakeTable:
    """The table of that name; ConfigError where there is none."""
    if name not in TABLES:
        raise ConfigError(f"no table named '{name}'; there are: {', '.join(TABLES)}")
    return TABLES[name]
