"""The event log, whatever becomes of the disk below it."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from training.events import Notice, parse_event

FULL_FOR_A_WHILE = """
import resource, sys
from pathlib import Path
from training.events import EventLog, Notice
log = EventLog(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for number in range(50):
    log(Notice(sentence=str(number)))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log(Notice(sentence="50"))
log.close()
"""


def test_a_full_disk_neither_ends_the_run_nor_tears_an_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    subprocess.run([sys.executable, "-c", FULL_FOR_A_WHILE, path], cwd=ROOT, check=True)
    told = [parse_event(line) for line in path.read_bytes().splitlines()]
    assert told == [Notice(sentence=str(number)) for number in range(51)]
