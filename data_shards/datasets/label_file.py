"""Read a dataset's CSV of labels: any header spelling, a clear sentence where a column or a level is wrong."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from data_shards.errors import ClipError, DataError
from data_shards.storage.source import Source

__all__ = ["decode_text", "parse_level", "parse_level_name", "plain_name", "read_label_rows"]

_DELIMITERS = (",", ";", "\t")  # spreadsheets write what their language's decimal comma leaves free


def read_label_rows(source: Source, name: str, *, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of the file `name`, names and values stripped of spaces; extra columns are kept.

    A byte order mark, UTF-16, and semicolons or tabs for commas are understood. DataError where the file or a required
    column is missing.
    """
    place = f"{source.uri.rstrip('/')}/{name}"
    text = decode_text(source.read(name), place=place)
    rows = _rows(text, _delimiter(text, required), place)
    header = [column.strip() for column in next(rows, [])]
    repeated = [column for column, count in Counter(header).items() if count > 1]
    if repeated:
        raise DataError(f"{place}: two columns are named '{repeated[0]}'; keep one")
    missing = [column for column in required if column not in header]
    if missing:
        raise DataError(
            f"{place}: no column named '{missing[0]}' (it has: {', '.join(header) or 'none'}); "
            f"the first line must name the columns {', '.join(required)}"
        )
    for number, values in enumerate(rows, start=2):
        if any(value.strip() for value in values):
            padded = [*values, *[""] * (len(header) - len(values))]
            yield number, {column: value.strip() for column, value in zip(header, padded, strict=False)}


def parse_level(text: str, *, num_levels: int, place: str, column: str) -> int:
    """A label as an int in [0, num_levels). ClipError names the place and the column."""
    if not text:
        raise ClipError(f"{place}: {column} is empty: not labelled yet")
    if text not in map(str, range(num_levels)):
        raise ClipError(f"{place}: {column} is '{text[:40]}', outside its range 0 to {num_levels - 1}; mend the label file")
    return int(text)


def parse_level_name(text: str, levels: Mapping[str, int], *, place: str) -> int:
    """A level written as a word, whatever its case, spaces and hyphens; `levels` has `plain_name`s. ClipError names the place."""
    if plain_name(text) not in levels:
        known = ", ".join(f"'{name}'" for name in levels)
        raise ClipError(f"{place}: label is '{text[:40]}', not one of {known}; mend the label file")
    return levels[plain_name(text)]


def plain_name(text: str) -> str:
    """'SNP(Subject Not Present)' -> 'snp subject not present'."""
    return " ".join(re.findall(r"\w+", text.replace("_", " ").casefold()))


def decode_text(content: bytes, *, place: str) -> str:
    """Text in UTF-8 or, with its byte order mark, UTF-16. DataError where it is neither."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise DataError(f"{place}: not text in UTF-8 or UTF-16; save the label file as UTF-8") from None


def _delimiter(text: str, required: Sequence[str]) -> str:
    """The one that makes the first line name most of the required columns."""
    header = text.split("\n", 1)[0]
    return max(_DELIMITERS, key=lambda mark: len({part.strip(' "\r') for part in header.split(mark)} & set(required)))


def _rows(text: str, delimiter: str, place: str) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(f"{place} line {reader.line_num}: not readable as CSV ({error}); mend the label file") from None
