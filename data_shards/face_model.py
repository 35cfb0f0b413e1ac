"""MediaPipe's Face Landmarker model file: named by a person, or fetched once from its publisher and checked."""

import hashlib
import os
import time
from pathlib import Path

from data_shards.atomic import whole_file
from data_shards.errors import ConfigError
from data_shards.storage.store import file_sha256

__all__ = [
    "FACE_MODEL_SHA256",
    "FACE_MODEL_URL",
    "FACE_MODEL_VARIABLE",
    "face_model_at_hand",
    "face_model_path",
    "fetch_face_model",
]

FACE_MODEL_VARIABLE = "RAPT_FACE_LANDMARKER"
FACE_MODEL_URL = "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
FACE_MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"  # version 1: 3,758,596 bytes

_MAX_BYTES = 16 * 2**20
_CONNECT_S = 5.0  # a command that can do without the model waits no longer
_ANSWER_S = 20.0  # between two pieces
_WHOLE_S = 300.0


def face_model_path(option: str | Path | None, *, url: str = FACE_MODEL_URL) -> Path:
    """The model file: `option`, else the environment's RAPT_FACE_LANDMARKER, else Rapt's own copy, fetched the first time.

    A named file is taken as it is. The copy lies in RAPT_HOME's `models` (`.rapt/models`), and only the bytes of
    FACE_MODEL_SHA256 are ever used. ConfigError where the named file is not there, or none is named and none can be had.
    """
    named = _named(option)
    if named is not None:
        return named
    copy = _own_copy()
    if not _is_published(copy):
        fetch_face_model(copy, url=url)
    return copy


def face_model_at_hand() -> Path | None:
    """As `face_model_path` without an option, but nothing is fetched: None where no file is here.

    ConfigError where the environment names a file that is not there: who names one believes that faces are looked for.
    """
    named = _named(None)
    if named is not None:
        return named
    return _own_copy() if _is_published(_own_copy()) else None


def _named(option: str | Path | None) -> Path | None:
    named = str(option or os.environ.get(FACE_MODEL_VARIABLE, ""))
    if not named:
        return None
    path = Path(named)
    if not path.is_file():
        raise ConfigError(f"{named}: no such face model file; name MediaPipe's face_landmarker.task (see --face-model)")
    return path


def _own_copy() -> Path:
    return Path(os.environ.get("RAPT_HOME", ".rapt")).absolute() / "models" / "face_landmarker.task"


def _is_published(copy: Path) -> bool:
    return copy.is_file() and file_sha256(copy) == FACE_MODEL_SHA256


def fetch_face_model(path: Path, *, url: str = FACE_MODEL_URL, sha256: str = FACE_MODEL_SHA256) -> None:
    """Fetch `url` to `path`: whole and with this sha256, or not at all. ConfigError says why not, and what to set instead."""
    import httpx

    instead = f"set {FACE_MODEL_VARIABLE} to MediaPipe's face_landmarker.task, from a machine that has it or can fetch it"
    patience = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
    digest, size_bytes, begun_s = hashlib.sha256(), 0, time.monotonic()
    try:
        with whole_file(path) as beside:
            with (
                httpx.stream("GET", url, timeout=patience) as answer,
                beside.open("wb") as file,
            ):
                answer.raise_for_status()
                for piece in answer.iter_bytes():
                    file.write(piece)
                    digest.update(piece)
                    size_bytes += len(piece)
                    if size_bytes > _MAX_BYTES:
                        raise ConfigError(f"{url}: more than the {_MAX_BYTES:,} bytes of a face model; {instead}")
                    if time.monotonic() - begun_s > _WHOLE_S:
                        raise ConfigError(f"{url}: not whole after {_WHOLE_S:.0f} s; {instead}")
            if digest.hexdigest() != sha256:
                raise ConfigError(
                    f"{url}: {size_bytes:,} bytes of another sha256 ({digest.hexdigest()[:16]}...) than the published model's "
                    f"({sha256[:16]}...); nothing was kept; {instead}"
                )
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"the face model cannot be fetched from {url} to {path} ({reason}); {instead}") from None
