"""The errors Rapt raises on purpose. Every message is one plain sentence: what, where, what to do.

RaptError
├── DataError            clips, shards, manifests, label files
│   ├── ClipError        one clip cannot be used: it is rejected, the build goes on
│   ├── ShardError       a shard, its index or the manifest is damaged or does not fit
│   └── StorageError     a folder or an object storage cannot be reached, or refuses
├── ConfigError          an unknown recipe, setting, dataset, or a setting that cannot apply
├── ModelError           a checkpoint, a bundle or a registered model cannot be had
├── ServiceError         the endpoint cannot start, or cannot answer
└── Stopped              not a fault: a run was asked to stop, has its checkpoint, and can go on

`ValueError` is a caller's programming fault; `assert` is ours. The command line prints a RaptError as one
line and exits with 1; the endpoint answers it with a 4xx or 5xx and the same sentence.
"""

__all__ = [
    "ClipError",
    "ConfigError",
    "DataError",
    "ModelError",
    "RaptError",
    "ServiceError",
    "ShardError",
    "Stopped",
    "StorageError",
]


class RaptError(Exception):
    """Root of the tree: anything a person can mend by reading the message."""


class DataError(RaptError):
    """Input data is missing or cannot be read."""


class ClipError(DataError):
    """One clip cannot be used; a build counts it in `rejects.jsonl` and goes on."""


class ShardError(DataError):
    """A shard, its index or the manifest is damaged, or does not fit the others."""


class StorageError(DataError):
    """A store failed: bucket missing, access refused, no answer, retries used up. Never holds a key or a credential."""


class ConfigError(RaptError):
    """A name or a setting is unknown, or cannot apply here."""


class ModelError(RaptError):
    """A checkpoint, bundle or registered model is missing or damaged."""


class ServiceError(RaptError):
    """The endpoint cannot start, or cannot answer."""


class Stopped(RaptError):  # noqa: N818  # not an error, but what ends a command with a sentence
    """A run was asked to stop (SIGTERM, Ctrl-C, a node that is taken away): its checkpoint is written, it can go on."""
