"""How many uploads and clips there is room for at once. Who finds none is told so at once, and waits nowhere."""

from collections.abc import Iterator
from contextlib import contextmanager

from data_shards.errors import ServiceError
from serving.http.metrics import Metrics

__all__ = ["NoRoom", "Places"]


class NoRoom(ServiceError):  # noqa: N818  # what there is not, as Stopped
    """Every place is taken: ask again in a few seconds."""


class Places:
    """Two bounds. An upload that is still coming holds none of the clips' places, so slow clients keep nobody from being
    scored, and of what they send little lies in memory (clip_form). Of one event loop."""

    def __init__(self, *, max_clips: int, max_uploads: int, metrics: Metrics) -> None:
        self._max_clips, self._max_uploads, self._metrics = max_clips, max_uploads, metrics
        self._clips, self._uploads = 0, 0

    @contextmanager
    def upload(self) -> Iterator[None]:
        """A place for a body that is being received. NoRoom also where its clip would find none now."""
        self._check_clips()
        if self._uploads >= self._max_uploads:
            raise NoRoom(f"{self._uploads} uploads are under way already; try again in a few seconds")
        self._uploads += 1
        self._tell()
        try:
            yield
        finally:
            self._uploads -= 1
            self._tell()

    @contextmanager
    def clip(self) -> Iterator[None]:
        """A place for a clip that is scored, or waits for it."""
        self._check_clips()
        self._clips += 1
        self._tell()
        try:
            yield
        finally:
            self._clips -= 1
            self._tell()

    def _check_clips(self) -> None:
        if self._clips >= self._max_clips:
            raise NoRoom(f"{self._clips} clips are waiting already; try again in a few seconds")

    def _tell(self) -> None:
        self._metrics.has_waiting(self._clips, self._uploads)
