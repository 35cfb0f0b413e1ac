"""Read a dataset's CSV of labels: any header spelling, a clear sentence where a column or a level is wrong."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_shards.errors import DataError

__all__ = ["parse_level", "read_label_rows"]


def read_label_rows(path: Path, *, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) with names and values stripped of spaces; extra columns are kept.

    A byte order mark and UTF-16 are understood. DataError where the file or a required column is missing.
    """
    rows = _rows(path)
    header = [name.strip() for name in next(rows, [])]
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise DataError(f"{path}: two columns are named '{repeated[0]}'; keep one")
    missing = [name for name in required if name not in header]
    if missing:
        raise DataError(
            f"{path}: no column named '{missing[0]}' (it has: {', '.join(header) or 'none'}); "
            f"the first line must name the columns {', '.join(required)}"
        )
    for number, values in enumerate(rows, start=2):
        if any(value.strip() for value in values):
            padded = [*values, *[""] * (len(header) - len(values))]
            yield number, {name: value.strip() for name, value in zip(header, padded, strict=False)}


def parse_level(text: str, *, num_levels: int, place: str, column: str) -> int:
    """A label as an int in [0, num_levels). DataError names the place and the column."""
    if text not in map(str, range(num_levels)):
        raise DataError(f"{place}: {column} is '{text[:40]}', outside its range 0 to {num_levels - 1}; mend the label file")
    return int(text)


def _rows(path: Path) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(_text(path), newline=""), skipinitialspace=True, strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: not readable as CSV ({error}); mend the label file") from None


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: not a plain file; name the folder that holds the label file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the label file cannot be read ({error.strerror}); check the source folder") from None
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise DataError(f"{path}: not text in UTF-8 or UTF-16; save the label file as UTF-8") from None
