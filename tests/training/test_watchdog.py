"""A worker that stops is named by the others, with the stacks of those that wait; a clock that jumps names nobody."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from training.watchdog import Beat, Seen, hang_sentence

TIMEOUT_S = 6


@contextmanager
def workers(
    folder: Path,
    *,
    hosts: tuple[str, str] = ("127.0.0.1", "127.0.0.1"),
    prefixes: tuple[list[str], list[str]] = ([], []),
    jump_s: float = 0,
) -> Iterator[list["subprocess.Popen[str]"]]:
    """Two workers that train together; whatever becomes of them, they are gone at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank, prefix in enumerate(prefixes):
        jump = str(jump_s if rank == 1 else 0.0 if not jump_s else 1e-9)
        arguments = [str(rank), "2", hosts[0], str(port), str(folder), str(TIMEOUT_S), jump]
        command = [*prefix, sys.executable, "-m", "tests.training.waiting_worker", *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment.pop("GLOO_SOCKET_IFNAME", None)
        if not prefix:
            environment["GLOO_SOCKET_IFNAME"] = "lo"
        started.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        )
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def wait_for_step(process: "subprocess.Popen[str]", step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step") and int(line.split()[1]) >= step:
            return
    raise AssertionError("the worker ended before that step")


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_stopped_worker_is_named_by_the_one_that_waits(stopped: int, tmp_path: Path) -> None:
    with workers(tmp_path) as both:
        waiting = both[1 - stopped]
        wait_for_step(waiting, 20)
        both[stopped].send_signal(signal.SIGSTOP)
        assert waiting.stdout is not None
        said = [line for line in waiting.stdout if not line.startswith("step")]
        both[stopped].send_signal(signal.SIGCONT)
    assert len(said) == 2, said
    assert said[0].startswith(f"hang: worker {stopped} is behind: in ")
    assert f"and silent; worker {1 - stopped} waits in update of step" in said[0]
    assert said[1].startswith("failed after ")
    stacks = (tmp_path / "hangs" / f"rank-{1 - stopped}.txt").read_text()
    assert f"worker {1 - stopped} has been in update of step" in stacks
    assert "in mean" in stacks


def test_a_clock_that_jumps_names_nobody(tmp_path: Path) -> None:
    with workers(tmp_path, jump_s=-7200.0) as both:
        said = []
        for process in both:
            assert process.stdout is not None
            said += [line for line in process.stdout if not line.startswith("step")]
    assert said == []
    assert not (tmp_path / "hangs").exists()


def may_make_namespaces() -> bool:
    name = f"rapt-try-{os.getpid()}"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    except OSError:
        return False
    if made:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return made


def test_workers_whose_network_is_cut_both_see_it_and_say_so(tmp_path: Path) -> None:
    if not may_make_namespaces():
        pytest.skip("needs the right to make network namespaces")
    names = [f"rapt-{os.getpid()}-{rank}" for rank in range(2)]
    ends = [f"rv{os.getpid() % 100_000}{rank}" for rank in range(2)]

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for rank, (name, end) in enumerate(zip(names, ends, strict=True)):
            ip("-n", name, "addr", "add", f"10.77.0.{rank + 1}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        prefixes = tuple(
            ["ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={end}"] for name, end in zip(names, ends, strict=True)
        )
        with workers(tmp_path, hosts=("10.77.0.1", "10.77.0.2"), prefixes=(prefixes[0], prefixes[1])) as both:
            wait_for_step(both[0], 20)
            ip("-n", names[1], "link", "set", ends[1], "down")
            said = []
            for process in both:
                assert process.stdout is not None
                said.append([line for line in process.stdout if not line.startswith("step")])
        for rank, lines in enumerate(said):
            assert any(line.startswith(f"hang: worker {1 - rank} is behind") and "and silent" in line for line in lines), lines
            assert lines[-1].startswith("failed after "), lines
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def seen(moves: int, phase: str, *, silent_s: float = 0.0) -> Seen:
    return Seen(Beat(moves, 7, phase, 1), silent_s, 130.0)


def test_who_is_behind_and_who_waits_for_whom() -> None:
    both_answer = {0: seen(30, "update"), 1: seen(28, "data"), 2: seen(30, "update")}
    sentence, behind = hang_sentence(both_answer, silent_after_s=60)
    assert behind == (1,)
    assert sentence == "worker 1 is behind: in data of step 7 for 130 s; workers 0, 2 wait in update of step 7"
    # one that no longer speaks is behind though it has not begun fewer phases
    assert hang_sentence({0: seen(30, "update"), 1: seen(30, "update", silent_s=100)}, silent_after_s=60)[1] == (1,)
    assert hang_sentence({0: seen(30, "update"), 1: seen(30, "update")}, silent_after_s=60) == (
        "no worker moves, and none is behind: all are in update of step 7",
        (),
    )
