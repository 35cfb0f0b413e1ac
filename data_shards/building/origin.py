"""Where a set's clips lay when it was built, so that features can be added to it without being told again."""

from data_shards.errors import ConfigError, ShardError
from data_shards.listing import Origin
from data_shards.storage.store import Store

__all__ = ["read_origin", "write_origin"]

_NAME = "source.json"


def write_origin(store: Store, origin: Origin) -> None:
    """Beside the manifest, and no part of it: the same clips elsewhere make the same set."""
    store.write(_NAME, origin.to_bytes())


def read_origin(store: Store) -> Origin:
    """ConfigError where the set does not say it, as one that was copied from elsewhere."""
    try:
        return Origin.from_bytes(store.read(_NAME), origin=f"{store.uri}/{_NAME}")
    except (FileNotFoundError, ShardError):
        raise ConfigError(
            f"{store.uri}: does not say where its clips are ({_NAME}); name them with --dataset and --source, as for the build"
        ) from None
