"""Where Rapt keeps its state: one folder, `RAPT_HOME` or `.rapt` here.

.rapt/mlflow/      tracking database and artifacts (where no MLFLOW_TRACKING_URI names a server)
.rapt/runs/RUN/    run.json, events.jsonl, checkpoints/, bundle/, tracking/
.rapt/simulated/   generated clips
.rapt/audits/      what `rapt shards audit` found, by the digest of the shards
.rapt/shards/      the demo's shards
.rapt/cache/       shards fetched from a bucket, bounded
.rapt/keys.json    API keys, without their secrets (rapt keys)
.rapt/serving/     the endpoint's audit log, and lessons while they are scored
.rapt/models/      face_landmarker.task, where no RAPT_FACE_LANDMARKER names one (data_shards/face_model.py)
"""

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from data_shards.errors import ConfigError
from data_shards.face_model import FACE_MODEL_VARIABLE, face_model_path
from data_shards.storage.shard_cache import CacheSettings

__all__ = [
    "absolute_uri",
    "audits_folder",
    "cache_settings",
    "have_face_model",
    "home",
    "keys_file",
    "mlflow_uri",
    "new_run_id",
    "run_folder",
    "serving_folder",
    "shown",
]


def home() -> Path:
    """The state folder, absolute; made where it is missing."""
    path = Path(os.environ.get("RAPT_HOME", ".rapt")).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"RAPT_HOME {path}: cannot be made ({error.strerror}); name a folder you may write to") from None
    return path


def mlflow_uri() -> str:
    """The tracking server's address, or the embedded sqlite database below the state folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow' / 'mlflow.db'}"


def audits_folder() -> Path:
    """Where audits lie, DIGEST.json each."""
    return home() / "audits"


def keys_file() -> Path:
    """Where the API keys are recorded."""
    return home() / "keys.json"


def serving_folder() -> Path:
    """Where the endpoint's audit log and its lessons lie."""
    return home() / "serving"


def cache_settings(max_gib: float) -> CacheSettings:
    """The cache for shards that lie in a bucket."""
    return CacheSettings(home() / "cache", int(max_gib * 2**30))


def have_face_model(say: Callable[[str], object]) -> None:
    """Fetch the face model unless one is at hand, and name it to the processes that are started from here.

    Where it cannot be had, `say` is told once, and clips are scored without anybody looking for faces.
    """
    try:
        os.environ[FACE_MODEL_VARIABLE] = str(face_model_path(None))
    except ConfigError as error:
        if os.environ.get(FACE_MODEL_VARIABLE):
            raise  # who names a file believes that faces are looked for
        say(f"nobody looks for faces: {error}")


def absolute_uri(uri: str) -> str:
    """A folder's absolute path; an address with a scheme as it is."""
    return uri if "://" in uri else str(Path(uri).absolute())


def shown(path: Path) -> str:
    """A path as a person would type it here: relative where it lies below this folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def new_run_id(recipe: str) -> str:
    """A name for a run that sorts by time: RECIPE-YYYYMMDD-HHMMSS-XXXX."""
    return f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def run_folder(run_id: str) -> Path:
    """Where a run lies; `run_id` may also be the path of such a folder."""
    return Path(run_id).absolute() if "/" in run_id else home() / "runs" / run_id
