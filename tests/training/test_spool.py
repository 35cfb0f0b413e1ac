"""The spool on disk: in order, nothing lost by a kill or a full disk, half a line passed over, a step told once."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from training.tracking.entries import Metrics, RunOpened, Status, Tags
from training.tracking.spool import Position, Spool, read_entries, read_position, save_position, waiting_records


def metrics(step: int, **values: float) -> Metrics:
    return Metrics(at_ms=1_700_000_000_000 + step, step=step, values=values or {"loss": 1 / (step + 1)})


def entries_of(folder: Path) -> list[object]:
    found, offset = [], 0
    while some := read_entries(folder, offset):
        found += [entry for entry, _ in some]
        offset = some[-1][1]
    return found


def test_entries_come_back_in_order_and_as_they_were(tmp_path: Path) -> None:
    told = [RunOpened(name="run", at_ms=1), Tags(values={"ü": "\n"}), *(metrics(step) for step in range(5000))]
    spool = Spool(tmp_path)
    for entry in told:
        spool.append(entry)
    spool.close()
    assert entries_of(tmp_path) == told  # 5,000 lines are more than one look
    assert waiting_records(tmp_path) == len(told)


def test_half_a_line_is_passed_over_and_the_next_entry_is_whole(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(metrics(1))
    spool.append(metrics(2))
    spool.close()
    path = tmp_path / "spool.jsonl"
    path.write_bytes(path.read_bytes()[:-20])  # a kill in the middle of a write
    assert entries_of(tmp_path) == [metrics(1)]
    again = Spool(tmp_path)
    again.append(metrics(2))  # the half line never counted as told
    again.append(metrics(3))
    again.close()
    assert entries_of(tmp_path) == [metrics(1), None, metrics(2), metrics(3)]


def test_a_flipped_byte_costs_one_entry(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for step in (1, 2, 3):
        spool.append(metrics(step))
    spool.close()
    path = tmp_path / "spool.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"step":2', b'"stop":2'))
    assert entries_of(tmp_path) == [metrics(1), None, metrics(3)]


def test_a_step_that_is_there_is_not_told_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for step in range(1, 6):
        spool.append(metrics(step))
    spool.close()
    again = Spool(tmp_path)
    for step in range(3, 8):  # back at the checkpoint of step 2
        again.append(metrics(step))
    again.append(metrics(4, loss=0.5, accuracy=0.25))  # a figure that is new at an old step is told alone
    again.append(Status(status="FINISHED", at_ms=9))
    again.close()
    steps = [entry.step for entry in entries_of(tmp_path) if isinstance(entry, Metrics)]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 4]
    assert entries_of(tmp_path)[-2] == metrics(4, accuracy=0.25)
    assert Spool(tmp_path).last_status == "FINISHED"


def test_a_damaged_or_impossible_position_is_the_start(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(metrics(1))
    spool.close()
    assert read_position(tmp_path) == Position()
    save_position(tmp_path, Position(uri="http://a", offset=10**6, num_sent=9, mlflow_run_id="x"))
    assert read_position(tmp_path) == Position(uri="http://a")  # a power cut took more of the spool than of the position
    (tmp_path / "position.json").write_bytes(b"{")
    assert read_position(tmp_path) == Position()


def program(body: str, *arguments: object) -> "subprocess.Popen[bytes]":
    start = """
import os, resource, sys
from pathlib import Path
from tests.training.test_spool import metrics
from training.tracking.spool import Spool
spool = Spool(Path(sys.argv[1]))
"""
    command = [sys.executable, "-c", start + body, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def test_a_full_disk_loses_nothing_that_comes_before_there_is_room(tmp_path: Path) -> None:
    body = """
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for step in range(50):
    spool.append(metrics(step), durable=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
spool.append(metrics(50))
spool.close()
"""
    assert program(body, tmp_path).wait() == 0
    found = entries_of(tmp_path)
    assert [entry for entry in found if entry is not None] == [metrics(step) for step in range(51)]
    assert found.count(None) == 1  # the line in whose middle the disk was full


def test_kill_9_loses_nothing_that_was_told(tmp_path: Path) -> None:
    body = """
for step in range(10**9):
    spool.append(metrics(step))
    os.write(1, b"%d\\n" % step)
"""
    for trial in range(5):
        folder = tmp_path / str(trial)
        process = program(body, folder)
        assert process.stdout is not None
        for _ in range(100 + 37 * trial):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        told = 100 + 37 * trial + len(process.stdout.read().splitlines(keepends=True))
        process.wait()
        steps = [entry.step for entry in entries_of(folder) if isinstance(entry, Metrics)]
        assert steps == list(range(len(steps)))
        assert len(steps) >= told - 1  # the last number may be half written
