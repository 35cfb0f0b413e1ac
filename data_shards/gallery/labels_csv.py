"""The `labels.csv` of cut clips, for a person to fill in and the dataset `folder` to read."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from data_shards.atomic import write_whole
from data_shards.datasets.label_file import read_label_rows
from data_shards.gallery.plan import PlannedClip
from data_shards.storage.source import Source

__all__ = ["COLUMNS", "write_labels"]

COLUMNS = ("clip", "label", "subject", "session", "split", "start_s", "end_s", "speaker", "speech")


def write_labels(folder: Path, clips: Sequence[PlannedClip], session: str) -> int:
    """Write labels.csv; rows that are there stay as a person left them. Returns how many rows have no label yet."""
    path = folder / "labels.csv"
    there = read_label_rows(Source(folder), path.name, required=("clip", "label")) if path.exists() else ()
    filled = {row["clip"]: row for _, row in there}
    rows = {clip.name: _row(clip, session) for clip in clips}
    columns = list(dict.fromkeys([*COLUMNS, *(name for row in filled.values() for name in row)]))
    if not path.exists() or not rows.keys() <= filled.keys():
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        for row in {**rows, **filled}.values():
            writer.writerow({name: _as_text(value) for name, value in row.items()})
        write_whole(path, text.getvalue().encode(errors="replace"))
    return sum(not filled.get(name, {}).get("label") for name in rows)


def _row(clip: PlannedClip, session: str) -> dict[str, str]:
    return {
        "clip": clip.name,
        "label": "",
        "subject": clip.subject,
        "session": session,
        "split": "",
        "start_s": f"{clip.start_s:.3f}",
        "end_s": f"{clip.end_s:.3f}",
        "speaker": clip.speaker,
        "speech": clip.speech,
    }


def _as_text(value: str) -> str:
    """A spreadsheet takes '=1+1' for a formula, but not after a space, which the reader of labels strips again."""
    return f" {value}" if value[:1] in tuple("=+-@\t") else value
