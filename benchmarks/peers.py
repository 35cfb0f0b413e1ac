"""The other libraries that benchmarks measure against: in a virtual environment of their own, made on first use.

litdata and mosaicml-streaming bring torchvision, and decord2 is a module of the same name as decord: none of them may lie in
Rapt's own environment. They share its versions of what they have in common.
"""

import subprocess
import venv
from importlib.metadata import version
from pathlib import Path

from benchmarks.measure import console
from cluster.home import home

__all__ = ["peers_python"]

_PEERS = ("decord2==3.4.0", "litdata==0.2.76", "mosaicml-streaming==0.13.0")
_SHARED = ("webdataset", "torch", "pillow", "pydantic")


def peers_python() -> Path | None:
    """The interpreter that has them, or None, with a sentence printed, where they cannot be installed."""
    packages = [*_PEERS, *(f"{name}=={version(name).split('+')[0]}" for name in _SHARED)]
    folder = home() / "benchmarks" / "peers"
    python, ready = folder / "bin" / "python", folder / "ready.txt"
    if ready.exists() and ready.read_text().split() == packages:
        return python
    console.print(f"installing the peers into {folder}, once")
    venv.create(folder, clear=True, with_pip=True)
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "pip failed")
        console.print(f"skipped: the peers cannot be installed ({reason})")
        return None
    ready.write_text("\n".join(packages) + "\n")
    return python
