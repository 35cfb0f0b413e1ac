"""How the HTTP app behaves: keys, bounds, deadlines, headers. Made by whoever starts it, handed to `build_app`."""

from pathlib import Path
from typing import Self

from pydantic import Field

from data_shards.schema import Stored

__all__ = ["LOOPBACK", "AppSettings"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class AppSettings(Stored):
    """Settings of one HTTP app. The defaults are those of a service on loopback that has no keys.

    keys_file: the keys that it knows; None where it knows none. require_keys: refuse who has no key even where none was made
    yet. audit_folder: where its audit log lies; None for no log. max_upload_mib bounds one clip; a lesson's recording has its
    bound in JobLimits. max_clips_waiting: clips that are being scored or wait for it; max_uploads: clips' bodies that are
    being received at once. deadline_s: what a request may take from its arrival to its answer; a client may ask for less.
    upload_s: how long a body may take to arrive, and longer only where it comes at min_upload_kib_per_s (Apache's
    mod_reqtimeout has the same rule, MinRate). open_rate_per_minute: requests that a service without keys answers.
    cors_origins: pages of other origins that may call it. open_hosts: names in Host that it answers to while it has no keys,
    all where empty: a foreign name that is pointed at loopback would let a foreign page read it (DNS rebinding).
    tls: it is reached over HTTPS, by its own certificate or through a proxy.
    """

    keys_file: Path | None = None
    require_keys: bool = False
    audit_folder: Path | None = None
    max_upload_mib: int = Field(default=100, ge=1)
    max_clips_waiting: int = Field(default=16, ge=0)
    max_uploads: int = Field(default=32, ge=1)
    deadline_s: float = Field(default=120.0, gt=0)
    upload_s: float = Field(default=60.0, gt=0)
    min_upload_kib_per_s: int = Field(default=256, ge=1)
    open_rate_per_minute: int = Field(default=6000, ge=1)
    cors_origins: tuple[str, ...] = ()
    open_hosts: tuple[str, ...] = ()
    tls: bool = False

    @classmethod
    def of_endpoint(
        cls,
        host: str,
        *,
        keys_file: Path,
        audit_folder: Path,
        require_keys: bool = False,
        cors_origins: tuple[str, ...] = (),
        tls: bool = False,
    ) -> Self:
        """The settings of an endpoint that listens on `host`. Anywhere but on loopback keys are required."""
        on_loopback = host in LOOPBACK
        return cls(
            keys_file=keys_file,
            audit_folder=audit_folder,
            require_keys=require_keys or not on_loopback,
            cors_origins=cors_origins,
            open_hosts=(*LOOPBACK, "[::1]") if on_loopback else (),
            tls=tls,
        )
