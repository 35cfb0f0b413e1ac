"""The base of everything Rapt stores as JSON: frozen, keyword-only, unknown keys refused, one spelling of its bytes."""

import json
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from data_shards.errors import ShardError

__all__ = ["Stored", "first_problem"]


class Stored(BaseModel):
    """A stored record. `to_bytes` gives the same bytes for the same content, so a digest of them is a version."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_bytes(self) -> bytes:
        """Canonical UTF-8 JSON: field order of the class, no NaN, one trailing newline; "?" for what no UTF-8 can say."""
        content = json.dumps(self.model_dump(mode="json"), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return f"{content}\n".encode(errors="replace")  # a file name that is no UTF-8: its lone surrogates can't be read back

    @classmethod
    def from_bytes(cls, content: bytes, *, origin: str | Path) -> Self:
        """Parse and validate; ShardError names `origin` and the first field that is wrong."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise ShardError(
                f"{origin}: not a readable {cls.__name__} record ({first_problem(error)}); "
                "build the shards again, or copy them again from where they came"
            ) from None


def first_problem(error: ValidationError) -> str:
    """The first of pydantic's findings as `field: reason`."""
    finding = error.errors()[0]
    place = ".".join(str(part) for part in finding["loc"]) or "content"
    return f"{place}: {finding['msg'].removeprefix('Value error, ')}"
