"""CSV and TSV into rows of text, as a stream.

Every value is text: "007" stays "007", and an empty field is an empty text, not null.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence

from flavor.errors import InputError
from producer.files import listed
from producer.lines import read_texts
from worker.inputs import MAX_ROW_BYTES

_NUL_STAND_IN = "\udc00"  # never in decoded UTF-8, so it cannot be mistaken for data


def read_csv(
    stream: io.BufferedReader, source: str, *, delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row's first line, from 1, and its fields by the header's names.

    Blank lines are no rows; a row of one empty field is written ``""``.

    Raises:
        InputError: no header, a name in it twice, a row of another width, a broken quote.
    """
    rows = _read_fields(stream, source, delimiter=delimiter)
    _, header = next(rows, (0, None))
    if header is None:
        raise InputError(f"{source}:1: the file is empty; its first line must name the columns")
    check_names(header, source)
    width = len(header)
    for line, fields in rows:
        if len(fields) != width:
            raise InputError(
                f"{source}:{line}: there are {len(fields)} fields, but {width} columns; "
                "a field with separators, quotes or line ends must stand in quotes"
            )
        yield line, dict(zip(header, fields, strict=True))


def check_names(names: Sequence[str], source: str) -> None:
    """Refuse a header in which a name stands twice: one column would hide the other."""
    if len(set(names)) < len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        raise InputError(f"{source}:1: columns of the same name: {listed(twice)}; rename them")


def _read_fields(
    stream: io.BufferedReader, source: str, *, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield each record's first line and fields; blank lines are none."""
    has_nul = False

    def lines() -> Iterator[str]:
        nonlocal has_nul
        for line in read_texts(stream, source):
            if "\0" in line:  # Python 3.10's csv refuses them
                has_nul = True
                yield line.replace("\0", _NUL_STAND_IN)
            else:
                yield line

    csv.field_size_limit(MAX_ROW_BYTES)  # the process's, and 131,072 by default
    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, _with_nuls(fields) if has_nul else fields
            start = reader.line_num + 1
    except csv.Error as error:
        raise _csv_error(error, f"{source}:{start}") from error


def _with_nuls(fields: list[str]) -> list[str]:
    return [field.replace(_NUL_STAND_IN, "\0") for field in fields]


def _csv_error(error: csv.Error, place: str) -> InputError:
    reason = str(error)
    if "unexpected end" in reason or "field limit" in reason:
        reason = "a quote that opens in this row is never closed"
    elif "new-line" in reason:
        reason = "a carriage return outside quotes; convert the line ends to \\n"
    return InputError(f"{place}: no CSV that can be read: {reason}")
