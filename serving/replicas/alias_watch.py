"""Follow an alias of the registry: a new version is tried beside the one that answers, and takes its place only then."""

import logging
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_shards.errors import RaptError
from training.registry import RegisteredModel, find_version, resolve
from training.tracking.client import first_line, mlflow_client

__all__ = ["AliasWatch"]

_LOG = logging.getLogger("rapt.serving")
_LONGEST_PAUSE_S = 600.0
_KEPT_DOWNLOADS = 3


class AliasWatch:
    """A thread that looks every `every_s` seconds who holds the alias in `model`, and hands a new version to `take`.

    model: models:/NAME@alias; a version or a folder is taken once. take: makes it answer, or raises RaptError where it
    cannot; then the old one goes on, and the version is tried again after a pause that doubles. tell: gets what an operator
    should know, "" once it is mended. first: what was fetched already.
    """

    def __init__(
        self,
        model: str,
        uri: str,
        take: Callable[[RegisteredModel], None],
        *,
        every_s: float,
        tell: Callable[[str], None],
        first: RegisteredModel | None = None,
    ) -> None:
        self._model, self._uri, self._take, self._every_s, self._tell = model, uri, take, every_s, tell
        self._first = first
        self._held = ""
        self._told = ""
        self._failed, self._try_again_s, self._pause_s = "", 0.0, every_s
        self._client: Any = None
        self._downloads: list[tempfile.TemporaryDirectory[str]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="alias-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a version that is being tried is let go on with."""
        self._stopped.set()

    def join(self, timeout_s: float) -> None:
        """Wait for its end: that of a watch which was stopped, or had nothing to follow."""
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                self._look()
            except RaptError as error:
                self._warn(self._with_holder(str(error)))
            except Exception as error:  # mlflow and its drivers raise errors of many kinds, and the watch must outlive them
                self._client = None
                self._warn(self._with_holder(f"the registry does not answer ({first_line(error)})"))
            if self._held and "@" not in self._model:
                return
            self._stopped.wait(self._every_s)

    def _look(self) -> None:
        first, self._first = self._first, None
        if first is not None:
            self._try(f"models:/{first.name}/{first.version}" if first.version else str(first.folder), first)
            if "@" not in self._model:
                return
        address = self._address()
        if address == self._held:
            self._warn("")
        elif address != self._failed or time.monotonic() >= self._try_again_s:
            self._try(address, None)

    def _address(self) -> str:
        """Of the version that the alias stands for now. RaptError where the registry has none or does not answer."""
        if not self._model.startswith("models:/"):
            return self._model
        try:
            self._client = self._client or mlflow_client(self._uri)
            found = find_version(self._client, self._model)
        except RaptError:
            self._client = None
            raise
        return f"models:/{found.name}/{found.version}"

    def _try(self, address: str, fetched: RegisteredModel | None) -> None:
        scratch = None
        try:
            if fetched is None:
                scratch = tempfile.TemporaryDirectory(prefix="rapt-bundle-", ignore_cleanup_errors=True)
                fetched = resolve(address, self._uri, scratch=Path(scratch.name))
            self._take(fetched)
        except Exception as error:
            if scratch is not None:
                scratch.cleanup()
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S) if address == self._failed else self._every_s
            self._failed, self._try_again_s = address, time.monotonic() + self._pause_s
            sentence = str(error) if isinstance(error, RaptError) else f"{type(error).__name__}: {first_line(error)}"
            self._warn(self._with_holder(f"{address} cannot answer: {sentence}"))
            return
        self._held, self._failed = address, ""
        self._keep(scratch)
        _LOG.warning("%s answers now", address)
        self._warn("")

    def _keep(self, download: "tempfile.TemporaryDirectory[str] | None") -> None:
        """Of downloads, those of the last versions: a replica that starts anew loads from there."""
        if download is None:
            return
        self._downloads.append(download)
        while len(self._downloads) > _KEPT_DOWNLOADS:
            self._downloads.pop(0).cleanup()

    def _with_holder(self, sentence: str) -> str:
        return f"{sentence}; {self._held} goes on" if self._held else sentence

    def _warn(self, sentence: str) -> None:
        """Told once, and again where it has changed."""
        if sentence != self._told:
            self._told = sentence
            self._tell(sentence)
            if sentence:
                _LOG.warning("%s", sentence)
