"""What the decode child is held in: tried from inside by code that has taken it over, and looked at from outside."""

import ctypes
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_shards.errors import ClipError, ConfigError, ShardError
from data_shards.extraction.clip_sample import ClipRecipe
from data_shards.preprocess import PreprocessConfig
from data_shards.sample import Sample, SampleMeta, encode_frames
from serving.confined.child_messages import ChildGone, receive, send
from serving.confined.confine import Confinement
from serving.confined.decode_child import DecodeChild
from serving.confined.sample_message import sample_of_members
from tests.conftest import ROOT

linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has limits alone, and `Confinement` says so")
RECIPE = ClipRecipe(PreprocessConfig(num_frames=4, size_px=32))

# what somebody would try who has the decoder run their code; each gets the name of the error, or "done"
INTRUDER = """
import ctypes, json, os, resource, socket, subprocess, sys, threading
from pathlib import Path
from serving.confined.confine import Bounds, confine, seal

scratch, outside, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
bounds = Bounds(memory_bytes=1 << 30, file_bytes=1 << 20, scratch_bytes=4 << 20)
held = confine(bounds, scratch)
sealed = seal(bounds)
libc = ctypes.CDLL(None, use_errno=True)

def tried(act):
    try:
        act()
    except BaseException as error:
        return type(error).__name__
    return "done"

def called(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def fill():
    for number in range(100):
        (scratch / str(number)).write_bytes(bytes(1 << 19))

def in_a_thread(act):
    found = []
    thread = threading.Thread(target=lambda: found.append(tried(act)))
    thread.start()
    thread.join()
    return found[0]

parent = os.getppid()
print(json.dumps({
    "held": held.sentence(), "sealed": sealed,
    "connects": tried(lambda: socket.create_connection(("127.0.0.1", port), timeout=2)),
    "connects in a thread": in_a_thread(lambda: socket.create_connection(("127.0.0.1", port), timeout=2)),
    "sends a datagram": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "opens a socket of files": tried(lambda: socket.socket(socket.AF_UNIX)),
    "queues calls past the filter": tried(lambda: called(425, 8, ctypes.create_string_buffer(256))),
    "writes a large file": tried(lambda: (scratch / "large").write_bytes(bytes(2 << 20))),
    "fills its scratch folder": tried(fill),
    "writes elsewhere": tried(lambda: (outside / "file").write_text("x")),
    "removes elsewhere": tried(lambda: (outside / "kept").unlink()),
    "takes memory": tried(lambda: bytes(2 << 30)),
    "raises its limit": tried(lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))),
    "lowers its parent's limit": tried(lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (8, 8))),
    "signals its parent": tried(lambda: os.kill(parent, 0)),
    "signals its group": tried(lambda: os.kill(0, 0)),
    "reads its parent's environment": tried(lambda: Path(f"/proc/{parent}/environ").read_bytes()),
    "starts a program": tried(lambda: subprocess.run(["true"])),
    "starts a process": tried(os.fork),
    "starts a thread": in_a_thread(lambda: None),
    "writes a little": tried(lambda: (scratch / "0").write_text("x")),
}))
"""


def gives_namespaces() -> bool:
    """Whether this system gives anybody a user namespace of their own, and mounts in it."""
    done = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "--net", "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture(scope="module")
def child() -> Iterator[DecodeChild]:
    """Whoever kills or closes it leaves it to the next to be started anew."""
    child = DecodeChild(RECIPE)
    yield child
    child.close()


@pytest.fixture(scope="module")
def intrusion(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each attempt came to, with a listener on loopback that nobody may reach."""
    scratch, outside = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("outside")
    (outside / "kept").write_text("kept")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        done = subprocess.run(
            [sys.executable, "-c", INTRUDER, str(scratch), str(outside), str(listener.getsockname()[1])],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert (outside / "kept").read_text() == "kept"
    found: dict[str, str] = json.loads(done.stdout)
    return found


@linux
def test_code_in_the_child_reaches_no_network(intrusion: dict[str, str]) -> None:
    tries = ("connects", "connects in a thread", "sends a datagram", "opens a socket of files", "queues calls past the filter")
    assert {name: intrusion[name] for name in tries} == dict.fromkeys(tries, "PermissionError")


@linux
def test_code_in_the_child_writes_no_large_file_and_none_elsewhere(intrusion: dict[str, str]) -> None:
    assert intrusion["writes a large file"] == "OSError"
    if ctypes.CDLL(None).syscall(444, None, 0, 1) >= 1:  # this kernel has Landlock
        assert intrusion["writes elsewhere"] == intrusion["removes elsewhere"] == "PermissionError"
    if gives_namespaces():
        assert intrusion["fills its scratch folder"] == "OSError"
    assert intrusion["writes a little"] == "done"


@linux
def test_code_in_the_child_gains_no_memory(intrusion: dict[str, str]) -> None:
    assert intrusion["takes memory"] == "MemoryError"
    assert intrusion["raises its limit"] in ("ValueError", "PermissionError")


@linux
def test_code_in_the_child_does_nothing_to_other_processes(intrusion: dict[str, str]) -> None:
    tries = ("lowers its parent's limit", "signals its parent", "signals its group", "starts a program", "starts a process")
    assert {name: intrusion[name] for name in tries} == dict.fromkeys(tries, "PermissionError")
    if gives_namespaces():
        assert intrusion["reads its parent's environment"] == "PermissionError"
    assert intrusion["starts a thread"] == "done"


@linux
def test_where_the_kernel_gives_no_namespace_the_filter_holds_alone() -> None:
    program = """
import os, socket, threading
from serving.confined.confine import Bounds, confine
if os.getuid() == 0:
    os.setuid(65534)
threading.Thread(target=threading.Event().wait, daemon=True).start()  # the kernel gives a new user namespace to one thread alone
held = confine(Bounds(memory_bytes=1 << 30), None)
print(held.network, held.own_users, held.scratch_in_memory)
try:
    socket.socket().connect(("127.0.0.1", 1))
except PermissionError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["filter False False", "refused"], done.stderr


@linux
def test_the_child_is_held_when_it_decodes(child: DecodeChild, simulated_folder: Path) -> None:
    clip = sorted((simulated_folder / "clips").iterdir())[0]
    assert len(child.sample_of(clip).sample.meta.frame_times_s) == 4
    assert child.confinement is not None
    assert child.confinement.network in ("namespace and filter", "filter")
    assert child.confinement.sealed
    assert "no network" in child.confinement.sentence()
    process = child._process
    assert process is not None
    status = dict(line.split(":\t") for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if ":\t" in line)
    assert (status["Seccomp"], status["NoNewPrivs"], int(status["CapEff"], 16)) == ("2", "1", 0)
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "1000"


@linux
def test_the_child_is_told_no_credential(child: DecodeChild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wellkept")
    child.close()
    child.start()
    process = child._process
    assert process is not None
    try:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    except PermissionError:
        pytest.skip("the kernel does not show another user namespace's environment")
    assert b"wellkept" not in environment
    assert b"PATH=" in environment


def test_an_upload_lies_nowhere_that_others_see(child: DecodeChild, simulated_folder: Path) -> None:
    clip = sorted((simulated_folder / "clips").iterdir())[0]
    from_file = child.sample_of(clip)
    from_upload = child.sample_of_upload(clip.read_bytes())
    assert from_upload.sample.frames_mjpeg == from_file.sample.frames_mjpeg
    scratch = child._scratch
    assert scratch is not None
    assert list(scratch.iterdir()) == []
    child.close()
    assert not scratch.exists()


def test_a_child_that_is_killed_comes_back(child: DecodeChild, simulated_folder: Path) -> None:
    clip = sorted((simulated_folder / "clips").iterdir())[0]
    child.start()
    assert child._process is not None
    first = child._process.pid
    os.kill(first, signal.SIGKILL)
    child._process.wait(10)
    assert child.sample_of(clip).sample.has_frames
    assert child._process.pid != first


@linux
def test_a_child_dies_with_its_parent_whatever_it_is_at() -> None:
    program = """
import os, signal, time
from data_shards.extraction.clip_sample import ClipRecipe
from data_shards.preprocess import PreprocessConfig
from serving.confined.decode_child import DecodeChild
child = DecodeChild(ClipRecipe(PreprocessConfig()))
child.start()
os.kill(child._process.pid, signal.SIGSTOP)  # at something: it does not look who is there
print(child._process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline_s = time.monotonic() + 20
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_what_a_killed_process_left_is_swept_and_what_a_live_one_has_is_not(
    child: DecodeChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child.close()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in (f"rapt-decode-{ended.pid}-left", f"rapt-decode-{os.getppid()}-alive", "rapt-decode-of-others"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clip").write_text("x")
    child.start()
    child.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"rapt-decode-{os.getppid()}-alive", "rapt-decode-of-others"]


def test_a_child_of_missing_weights_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAPT_I3D_WEIGHTS", raising=False)
    with pytest.raises(ConfigError, match="RAPT_I3D_WEIGHTS"):
        DecodeChild(ClipRecipe(None, {"i3d": {"extractor": "i3d", "settings": {}}})).start()


def test_a_confinement_says_what_does_not_hold() -> None:
    sentence = Confinement(network="open", limits=("memory",)).sentence()
    assert "THE NETWORK IS OPEN" in sentence
    assert "not here: own user namespace" in sentence


@pytest.mark.parametrize(
    "sent",
    [
        b"\x80\x04\x95pickle",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02[]",
        b"\x00\x00\x00\x0bnot a  json",
        b'\x00\x00\x00\x1f{"words": {}, "parts": {"a": -5}}'[:35],
        b"",
    ],
)
def test_what_a_taken_over_child_sends_is_no_more_than_no_message(sent: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, sent)
    os.close(writing)
    with pytest.raises(ChildGone):
        receive(reading)
    os.close(reading)


def test_messages_go_through_whole_and_a_reader_that_stops_is_given_up() -> None:
    reading, writing = os.pipe()
    parts = {"a": b"12", "b": b""}
    send(writing, {"number": 1}, parts)
    assert receive(reading) == ({"number": 1}, parts)
    with pytest.raises(TimeoutError):
        receive(reading, timeout_s=0.01)
    with pytest.raises(TimeoutError):
        send(writing, {}, {"large": bytes(1 << 20)}, timeout_s=0.01)
    os.close(reading)
    with pytest.raises(ChildGone):
        send(writing, {})
    os.close(writing)


def test_every_frame_of_a_sample_is_looked_at_before_it_is_decoded() -> None:
    """The first is of the size that was asked for; a later one says that it is a giant, and holds no such pixels."""
    plain, _ = encode_frames(np.zeros((1, 32, 32, 3), np.uint8), quality=90)
    at = plain.index(b"\xff\xc0") + 5  # the header of the frame: length, depth, then height and width
    for t, size in ((1, (64, 32)), (3, (32, 33)), (3, (65500, 65500))):
        frames = [plain] * 4
        frames[t] = plain[:at] + struct.pack(">HH", *size) + plain[at + 4 :]
        offsets = (0, *itertools.accumulate(map(len, frames)))
        known = {"clip_id": "a", "subject": "a", "session": "a", "split": "a", "labels": {}, "source_sha256": ""}
        meta = SampleMeta.model_validate({**known, "jpeg_offsets": offsets, "frame_times_s": (0.0, 1.0, 2.0, 3.0)})
        sample = Sample(meta, b"".join(frames))
        assert sample.frame_shape() == (4, 32, 32, 3)
        with pytest.raises(ChildGone, match=r"not of one size|no sample"):
            sample_of_members(sample.members(), RECIPE)
        with pytest.raises(ShardError, match=f"stored frame {t} is damaged"):
            sample.decode_frames()


def test_a_sample_of_another_size_than_asked_for_is_a_child_gone_wrong(simulated_folder: Path) -> None:
    clip = sorted((simulated_folder / "clips").iterdir())[0]
    child = DecodeChild(RECIPE)
    child.start()
    child._recipe = ClipRecipe(PreprocessConfig(num_frames=5, size_px=32))  # the child still makes 4 frames
    with pytest.raises(ClipError, match="crashed the decoder"):
        child.sample_of(clip)
    child.close()
