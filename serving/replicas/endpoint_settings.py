"""How an endpoint is set up: what it serves, how it batches, whom it compares, and how it ends."""

import os
import ssl
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from data_shards.errors import ConfigError
from data_shards.schema import Stored, first_problem
from serving.http.settings import LOOPBACK, AppSettings
from serving.jobs.record import JobLimits

__all__ = ["EndpointSettings", "TlsFiles", "check_exposure"]


class EndpointSettings(Stored):
    """What holds for a whole endpoint.

    model: whose alias is watched; no alias in it, nothing is watched. watch_s: seconds between two looks at the registry.
    challenger and shadow_share: who scores that share of the scored clips again, beside the answer.
    batch_size and batch_wait_ms: how many clips the model takes at once, and how long the first of them waits for others.
    A batch also takes what came while the one before was scored, so 0 ms batches under load and delays nobody [choice].
    max_decoders and max_scorers: replicas, None for a share of the cluster's CPUs (`deployments`).
    drain_s: the longest that requests under way are waited for where the endpoint ends. app: keys, bounds and headers.
    jobs_folder: where lessons lie while they are scored, and their numbers for as long as `jobs` says; None where no lessons
    are taken.
    """

    model: str = ""
    tracking_uri: str = ""
    allow_emotion: bool = False
    watch_s: float = Field(default=10.0, gt=0)
    challenger: str = ""
    shadow_share: float = Field(default=0.1, ge=0, le=1)
    shadow_every_s: float = Field(default=60.0, gt=0)
    batch_size: int = Field(default=8, ge=1, le=256)
    batch_wait_ms: float = Field(default=0.0, ge=0, le=1000)
    max_decoders: int | None = Field(default=None, ge=1)
    max_scorers: int | None = Field(default=None, ge=1)
    drain_s: float = Field(default=60.0, ge=0)
    app: AppSettings = Field(default_factory=AppSettings)
    jobs_folder: Path | None = None
    jobs: JobLimits = Field(default_factory=JobLimits)

    @property
    def longest_upload_s(self) -> float:
        """How long the largest body that is taken may take to arrive: a clip's, or a whole lesson's in one request."""
        max_bytes = self.jobs.max_bytes if self.jobs_folder else self.app.max_upload_mib << 20
        return max(self.app.upload_s, max_bytes / (self.app.min_upload_kib_per_s << 10))

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> Self:
        """The settings of an application's `args`: text, and such again for `app` and `jobs`. ConfigError where one is unfit."""
        try:
            return cls.model_validate_strings(arguments)
        except ValidationError as error:
            raise ConfigError(
                f"the application's args: {first_problem(error)}; see serving/replicas/endpoint_settings.py"
            ) from None


class TlsFiles:
    """A certificate and its key, as PEM files, which are looked at before anything starts.

    ConfigError where one cannot be read, they do not belong together, or every user of the machine can read the key. Its
    group may: that is how Kubernetes mounts secrets for a container that is not root [choice].
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate, self.key = certificate.absolute(), key.absolute()
        for path in (self.certificate, self.key):
            if not os.access(path, os.R_OK):
                raise ConfigError(f"{path}: cannot be read; name a PEM file with --tls-cert and --tls-key")
        if self.key.stat().st_mode & 0o007:
            raise ConfigError(f"{key}: every user of this machine can read the key; take that away with chmod 600 {key}")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            raise ConfigError(f"{certificate} and {key}: no certificate with its unencrypted key ({reason})") from None


def check_exposure(host: str, tls: TlsFiles | None, *, insecure: bool) -> None:
    """ConfigError where clips of people and API keys would cross a network in the clear and nobody has said so [choice]."""
    if host not in LOOPBACK and tls is None and not insecure:
        raise ConfigError(
            f"--host {host}: clips and keys would cross the network unencrypted; give --tls-cert and --tls-key, "
            "or say --insecure where something before it speaks TLS"
        )
