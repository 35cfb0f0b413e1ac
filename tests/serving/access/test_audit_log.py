"""The audit log: bounded, whole lines, one file for several processes."""

import json
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_shards.errors import ConfigError
from serving.access.audit_log import AUDIT_FILE, AuditLine, AuditLog
from tests.conftest import ROOT


def line(request_id: str) -> AuditLine:
    return AuditLine(
        time=datetime(2026, 1, 1, tzinfo=UTC),
        request_id=request_id,
        key_id=None,
        method="GET",
        route="/v1/model",
        status=200,
        bytes_in=0,
        bytes_out=10,
        ms=1.5,
    )


def ids(path: Path) -> list[str]:
    return [json.loads(text)["request_id"] for text in path.read_text().splitlines()]


def test_what_it_keeps_is_bounded_and_the_oldest_goes(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, max_bytes=500, num_files=3)
    for number in range(100):
        log.write(line(str(number)))
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [AUDIT_FILE, f"{AUDIT_FILE}.1", f"{AUDIT_FILE}.2"]
    kept = ids(files[2]) + ids(files[1]) + ids(files[0])
    assert kept == [str(number) for number in range(100 - len(kept), 100)]
    assert all(file.stat().st_size < 500 + 300 for file in files)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)


def test_two_processes_write_to_one_and_no_line_is_torn(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from serving.access.audit_log import *\n"
        "log, line = AuditLog(Path(sys.argv[1]), max_bytes=4000, num_files=100), AuditLine.model_validate_json(sys.argv[3])\n"
        "for number in range(200): log.write(line.model_copy(update={'request_id': f'{sys.argv[2]}{number}'}))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    writers = [subprocess.Popen([*command, name, line("").to_bytes().decode()], cwd=ROOT) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    written = [each for file in tmp_path.iterdir() for each in ids(file)]
    assert sorted(written) == sorted(f"{name}{number}" for name in "ab" for number in range(200))


def test_a_file_that_another_moved_in_the_same_moment_is_not_moved_again(tmp_path: Path) -> None:
    quick, late = AuditLog(tmp_path, max_bytes=10), AuditLog(tmp_path, max_bytes=10_000)
    quick.write(line("first"))
    quick.write(line("second"))
    late._rotate()  # it saw the first file full just before it was moved
    late.write(line("third"))
    assert ids(tmp_path / f"{AUDIT_FILE}.1") == ["first"]
    assert ids(tmp_path / AUDIT_FILE) == ["second", "third"]
    quick.close()
    late.close()


def test_it_goes_on_where_a_person_moved_it_away(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.write(line("first"))
    (tmp_path / AUDIT_FILE).rename(tmp_path / "mine")
    log.write(line("second"))
    log.close()
    assert (ids(tmp_path / "mine"), ids(tmp_path / AUDIT_FILE)) == (["first"], ["second"])


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"audit\.jsonl: the audit log cannot be written .*name another folder"):
        AuditLog(tmp_path / "file")
