"""OpenFace's own FeatureExtraction, run on one clip: a program that is not part of Rapt and that a person has installed."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_shards.datasets.openface import read_openface
from data_shards.errors import ClipError, ConfigError
from data_shards.worker_pool import killed_with_parent

__all__ = ["OPENFACE_VARIABLE", "openface_program", "run_openface"]

OPENFACE_VARIABLE = "RAPT_OPENFACE"
_NAME = "clip"


def openface_program() -> Path:
    """The path in RAPT_OPENFACE. ConfigError where there is none, or no program is there."""
    named = os.environ.get(OPENFACE_VARIABLE, "")
    path = Path(named).absolute()
    if not named or not path.is_file() or not os.access(path, os.X_OK):
        what = f"{named}: no program that can be run" if named else "no OpenFace is named"
        raise ConfigError(
            f"{what}; set {OPENFACE_VARIABLE} to the path of OpenFace's FeatureExtraction, or use the source mediapipe or csv"
        )
    return path


def run_openface(program: Path, video: Path, *, limit_s: float) -> npt.NDArray[np.float32]:
    """The 49 columns of a video, (T, 49), as `read_openface` gives them. ClipError where it fails or takes over limit_s."""
    with tempfile.TemporaryDirectory(prefix="rapt-openface-", dir=_place(video)) as folder:
        arguments = [str(program), "-f", str(video.absolute()), "-out_dir", folder, "-of", _NAME, "-gaze", "-pose", "-aus", "-q"]
        with (Path(folder) / "said.txt").open("w+b") as said:
            _run(arguments, Path(folder), said.fileno(), f"{video.name}: OpenFace", limit_s)
            csv = Path(folder) / f"{_NAME}.csv"
            if not csv.is_file():
                said.seek(0)
                words = " ".join(said.read(100_000).decode(errors="replace").split())[-200:]
                raise ClipError(f"{video.name}: OpenFace wrote no CSV of it ({words or 'and said nothing'}); re-encode the clip")
        return read_openface(csv)


def _place(video: Path) -> Path | None:
    """Where to write: beside a video that is itself temporary, such as an upload, so that who deletes the one deletes the
    other, should this process be killed."""
    folder = video.absolute().parent
    return folder if folder.is_relative_to(tempfile.gettempdir()) and os.access(folder, os.W_OK) else None


def _run(arguments: list[str], folder: Path, output: int, what: str, limit_s: float) -> None:
    """Run to the end, in a process group of its own, which is ended as a whole where it takes too long; the program ends
    with this process, however that ends."""
    process = subprocess.Popen(
        arguments,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=killed_with_parent(),  # one call of the kernel, which takes no lock
    )
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        raise ClipError(f"{what} was not done after {limit_s:.0f} s and was ended; cut the clip") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        raise ClipError(f"{what} ended with status {status}; run it by hand to see why, or leave the clip out")
