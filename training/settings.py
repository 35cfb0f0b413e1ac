"""The base of what a model or a loss can be told: its registry name and its own fields."""

from data_shards.schema import Stored

__all__ = ["Settings"]


class Settings(Stored):
    """Settings of one registry entry; subclasses fix `name` to it and add fields with defaults."""

    name: str
