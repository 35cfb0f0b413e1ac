"""Work in a process of its own, asked for by JSON lines: for another interpreter, or for a memory that nothing else shares.

The worker's side is a module that calls `answer` with its functions; it imports nothing that the other interpreter lacks.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

__all__ = ["Worker", "answer", "one_core"]

_ROOT = Path(__file__).parent.parent


class Worker:
    """`python -m MODULE` as a process that answers one question at a time; one_core: it may use the last core alone."""

    def __init__(self, module: str, *, python: str | Path = sys.executable, on_one_core: bool = False) -> None:
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  # decoders talk; shown where the worker fails
        self._process = subprocess.Popen(
            [str(python), "-m", module, *(["one-core"] if on_one_core else [])],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, function: str, **arguments: Any) -> Any:
        """Call the worker's function; RuntimeError with the end of what it wrote where it died or raised."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([function, arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._stderr.seek(0)
            raise RuntimeError(f"{function}({str(arguments)[:200]}) failed:\n{self._stderr.read()[-3000:]}")
        return json.loads(line)

    def rss_mib(self) -> float:
        """Resident memory now, MiB."""
        import psutil

        return float(psutil.Process(self.pid).memory_info().rss / 2**20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._stderr.close()


def answer(functions: Mapping[str, Callable[..., Any]]) -> None:
    """In a worker: answer questions until there are no more. What libraries print goes to stderr."""
    if "one-core" in sys.argv:
        one_core()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        function, arguments = json.loads(line)
        answers.write(json.dumps(functions[function](**arguments)) + "\n")
        answers.flush()


def one_core() -> None:
    """Let this process use one core alone, where the system can: a rate is then a rate per core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
