"""What a node does while a run goes on: CPU, memory, disk, network and GPU, by MLflow's own collectors, into a spool.

One collector a node, whichever of its workers asks first. Its figures are named system/NODE/FIGURE and have a spool of
their own, RUN/tracking/NODE/: no worker needs the first one's.
"""

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from training.tracking.client import first_line, load_mlflow
from training.tracking.entries import Metrics, RunOpened
from training.tracking.sender import Sender, lock_spool
from training.tracking.spool import Spool
from training.tracking.told_run import now_ms

__all__ = ["NodeMonitor", "node_name"]

_LAST_SAMPLE_S = 0.5


def node_name() -> str:
    """This machine's name as MLflow takes it in a metric's."""
    return re.sub(r"[^\w.-]", "-", socket.gethostname())[:60] or "node"


class NodeMonitor:
    """Collects every interval_s until it is closed, where no other worker of this node does; 0 collects nothing."""

    def __init__(self, folder: Path, uri: str, *, run_name: str, interval_s: float, notify: Callable[[str], None]) -> None:
        self._interval_s, self._notify = interval_s, notify
        self._done = threading.Event()
        self._open = ExitStack()
        self._thread: threading.Thread | None = None
        self._node = node_name()
        claim = folder / self._node / "collector"
        if not interval_s:
            return
        claim.mkdir(parents=True, exist_ok=True)
        if not self._open.enter_context(lock_spool(claim)):
            return
        self._spool = Spool(claim.parent)
        if not self._spool.num_entries:
            self._spool.append(RunOpened(name=run_name, makes_it=False, at_ms=now_ms()))
        self._sender = Sender(self._spool, uri, notify=notify)
        self._thread = threading.Thread(target=self._collect, name="node-monitor", daemon=True)
        self._thread.start()

    def close(self, *, wait_s: float) -> None:
        """A last sample, then what is left to send is sent for at most wait_s."""
        if self._thread is not None:
            self._done.set()
            self._thread.join(timeout=10)
            self._spool.close()
            self._sender.close(wait_s=wait_s)
            self._thread = None
        self._open.close()

    def _collect(self) -> None:
        try:
            collectors = _collectors()
            for collector in collectors:  # psutil's share of the CPU is since it was last asked
                collector.collect_metrics()
                collector.clear_metrics()
            step = 1 + max(self._spool.last_steps.values(), default=-1)
            last_s = time.monotonic()
            while not self._done.wait(self._interval_s) or time.monotonic() - last_s > _LAST_SAMPLE_S:
                last_s = time.monotonic()
                self._spool.append(Metrics(at_ms=now_ms(), step=step, values=self._sample(collectors)))
                step += 1
        except Exception as error:  # whatever a driver says, a run does not end for its graphs
            self._notify(f"{self._node}: no more system metrics ({type(error).__name__}: {first_line(error)})")

    def _sample(self, collectors: list[Any]) -> dict[str, float]:
        values: dict[str, float] = {}
        for collector in collectors:
            collector.collect_metrics()
            values |= {f"system/{self._node}/{name}": float(value) for name, value in collector.aggregate_metrics().items()}
            collector.clear_metrics()
        return values


def _collectors() -> list[Any]:
    """MLflow's collectors that work here; the GPU's needs nvidia-ml-py and a driver."""
    load_mlflow()
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    collectors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(ImportError, RuntimeError):  # no GPU, or no package to ask it
        collectors.append(GPUMonitor())
    return collectors
