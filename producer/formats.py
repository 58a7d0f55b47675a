"""Records out of files: JSONL, CSV, TSV, Parquet and plain text, gzipped or not, as a stream.

A record is what the file says, with the line it says it on; what a model makes of it is decided in
``producer.source``. Everything that can be wrong with a file is an ``InputError`` with its line.
"""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from flavor.errors import InputError
from flavor.types import Json, StrEnum
from producer.files import (
    HashingInput,
    drain,
    find_files,
    gunzip,
    is_gzip,
    listed,
    printable,
    reading,
    seekable,
)
from producer.lines import read_lines, read_texts, utf8_error
from producer.parquet import read_table
from producer.tables import read_csv
from worker.inputs import from_json

TEXT_COLUMN = "text"
"""What the only column of a file without column names is called."""


class Format(StrEnum):
    """How a file says its records."""

    JSONL = "jsonl"  # keys may differ from record to record
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    TEXT = "text"  # a text a line, without column names


_SUFFIXES = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".parquet": Format.PARQUET,
    ".txt": Format.TEXT,
}


@dataclass(slots=True)
class Record:
    """One record of a file. ``line`` is where it starts, from 1; in Parquet, the row's number."""

    source: str
    line: int
    values: dict[str, Json]
    input_format: Format = Format.JSONL

    @property
    def place(self) -> str:
        """Where the record stands, as editors and compilers write it."""
        return f"{self.source}:{self.line}"


class Records(Iterator[Record]):
    """The records of an input, and, once it is read, the SHA-256 and the number of its bytes."""

    def __init__(self, files: list[Path] | BinaryIO, input_format: Format | None) -> None:
        self._hashing = HashingInput()
        self._is_complete = False
        self._files: list[Path] | None = None
        if isinstance(files, list):
            # All suffixes before the first row: a stray file must not turn up an hour later.
            formats = [input_format or _format_of(path) for path in files]
            self._files = files
            self._records = self._read_files(formats)
        else:
            self._records = self._read_stdin(files, input_format)

    def __iter__(self) -> Iterator[Record]:
        return self._records

    def __next__(self) -> Record:
        return next(self._records)

    @property
    def input_sha256(self) -> str | None:
        """Of all files' bytes as stored, one after the other; None until all were read."""
        return self._hashing.input_sha256 if self._is_complete else None

    @property
    def input_bytes(self) -> int:
        """How many bytes were read."""
        return self._hashing.input_bytes

    def finish(self) -> None:
        """Hash what a limit left unread, so that the lineage names the whole input.

        Stdin is the exception: it may never end, so its SHA-256 stays unknown.
        """
        self.close()
        if self._is_complete or self._files is None:
            return
        self._hashing = HashingInput()
        for path in self._files:
            with reading(printable(path)), self._hashing.open_file(path):
                pass  # leaving reads what nobody wanted, which is all of it
        self._is_complete = True

    def close(self) -> None:
        """Close the file at hand. What was not read stays unread."""
        self._records.close()

    def _read_files(self, formats: list[Format]) -> Generator[Record, None, None]:
        for path, input_format in zip(self._files or [], formats, strict=True):
            source = printable(path)
            with reading(source), self._hashing.open_file(path) as stream:
                if input_format is Format.PARQUET and path.is_file() and not is_gzip(stream):
                    drain(
                        stream
                    )  # Parquet is read from its end: once for the hash, once for the rows
                    yield from _read_table(path, source)
                else:
                    yield from _read_stream(stream, source, input_format=input_format)
        self._is_complete = True

    def _read_stdin(
        self, stdin: BinaryIO, input_format: Format | None
    ) -> Generator[Record, None, None]:
        with reading("stdin"), self._hashing.open_stream(stdin) as stream:
            yield from _read_stream(stream, "stdin", input_format=input_format)
            drain(stream)
        self._is_complete = True


def read_records(
    input_path: str, *, stdin: BinaryIO | None = None, input_format: str | None = None
) -> Records:
    """Read a file, a folder or a glob of them, or stdin (``-``), as a stream of records.

    A file's suffix says its format unless ``input_format`` does; stdin is looked into. Files are
    found here and now; their contents are read as the records are taken.

    Raises:
        InputError: no such file, a suffix that says nothing, or an unknown ``input_format``; and
            while reading, whatever is wrong with the bytes.
    """
    if input_format is not None and input_format not in list(Format):
        raise InputError(
            f"unknown input format {input_format!r}; there are: {listed(list(Format))}"
        )
    given = Format(input_format) if input_format is not None else None
    if input_path == "-":
        return Records(stdin or sys.stdin.buffer, given)
    return Records(find_files(input_path, is_known=_is_known), given)


def _is_known(path: Path) -> bool:
    return _suffix_of(path) in _SUFFIXES


def _suffix_of(path: Path) -> str:
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def _format_of(path: Path) -> Format:
    found = _SUFFIXES.get(_suffix_of(path))
    if found is None:
        raise InputError(
            f"{printable(path)}: the suffix {path.suffix!r} says no format that can be read; "
            f"there are: {', '.join(_SUFFIXES)}, each also with .gz"
        )
    return found


def _read_stream(
    stream: io.BufferedReader, source: str, *, input_format: Format | None
) -> Iterator[Record]:
    # One layer of gzip and no more: there are archives that unpack to themselves.
    with gunzip(stream) if is_gzip(stream) else nullcontext(stream) as unpacked:
        yield from _READERS[input_format or _sniff(unpacked)](unpacked, source)


def _sniff(stream: io.BufferedReader) -> Format:
    start = stream.peek(1)
    if start.startswith(b"PAR1"):
        return Format.PARQUET
    is_object = start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")
    return Format.JSONL if is_object else Format.TEXT


def _read_jsonl(stream: io.BufferedReader, source: str) -> Iterator[Record]:
    for number, line in enumerate(read_lines(stream, source), start=1):
        try:
            values = from_json(line)
        except ValueError as error:
            if not line.strip():
                continue
            raise _json_error(error, f"{source}:{number}", line=line) from error
        if type(values) is not dict:
            raise InputError(
                f"{source}:{number}: column 1: this is {_kind_of(values)}, but each line must be "
                'one JSON object like {"text": "…"}'
            )
        yield Record(source, number, values, Format.JSONL)


def _json_error(error: ValueError, place: str, *, line: bytes) -> InputError:
    if isinstance(error, UnicodeDecodeError):
        return utf8_error(error, place, line=line)
    if isinstance(error, json.JSONDecodeError):
        # Not the error's own column: where a line breaks off, that is the next line's first.
        column = min(error.pos, len(error.doc.rstrip())) + 1
        return InputError(f"{place}: column {column}: no JSON object: {error.msg}")
    return InputError(f"{place}: no JSON object that can be read: {error}")


def _kind_of(values: Json) -> str:
    names = {list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(values), "a number")


def _read_text(stream: io.BufferedReader, source: str) -> Iterator[Record]:
    for number, line in enumerate(read_texts(stream, source), start=1):
        text = line.removesuffix("\n").removesuffix("\r")
        yield Record(source, number, {TEXT_COLUMN: text}, Format.TEXT)


def _read_csv(stream: io.BufferedReader, source: str) -> Iterator[Record]:
    for line, values in read_csv(stream, source):
        yield Record(source, line, values, Format.CSV)


def _read_tsv(stream: io.BufferedReader, source: str) -> Iterator[Record]:
    for line, values in read_csv(stream, source, delimiter="\t"):
        yield Record(source, line, values, Format.TSV)


def _read_parquet(stream: io.BufferedReader, source: str) -> Iterator[Record]:
    with seekable(stream) as file:
        yield from _read_table(file, source)


def _read_table(file: Path | IO[bytes], source: str) -> Iterator[Record]:
    for number, values in enumerate(read_table(file, source), start=1):
        yield Record(source, number, values, Format.PARQUET)


_READERS = {
    Format.JSONL: _read_jsonl,
    Format.CSV: _read_csv,
    Format.TSV: _read_tsv,
    Format.PARQUET: _read_parquet,
    Format.TEXT: _read_text,
}
