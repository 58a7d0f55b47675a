"""Results as JSONL, CSV or Parquet, into a file or to stdout, as a stream."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow.parquet as pq

from flavor.errors import InputError
from flavor.types import Json, StrEnum
from producer.outcomes import Outcomes
from worker.inputs import to_json


class ResultFormat(StrEnum):
    """How results are written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


def write_results(outcomes: Outcomes, *, to: Path | None, form: ResultFormat) -> int:
    """Write all rows to a file or to stdout, and return how many there were. Blocks.

    Raises:
        InputError: Parquet is wanted on stdout, or the file cannot be written.
    """
    if form is ResultFormat.PARQUET:
        if to is None:
            raise InputError("parquet needs a file: add -o results.parquet")
        return _write_parquet(outcomes, to)
    with _opened(to) as file:
        return (_write_csv if form is ResultFormat.CSV else _write_jsonl)(outcomes, file)


@contextmanager
def _opened(to: Path | None) -> Iterator[IO[str]]:
    """Of a text that has no UTF-8 (a lone surrogate) a question mark is left."""
    if to is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        with _named("stdout"):
            yield sys.stdout
            sys.stdout.flush()
        return
    with _named(to), to.open("w", encoding="utf-8", errors="replace", newline="") as file:
        yield file


@contextmanager
def _named(to: Path | str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # head has seen enough: no error to tell anybody
        raise
    except OSError as error:
        raise InputError(f"cannot write results to {to}: {error.strerror or error}") from error


def _write_jsonl(outcomes: Outcomes, file: IO[str]) -> int:
    count = 0
    for row in outcomes.rows():
        file.write(to_json(row).decode() + "\n")
        count += 1
    return count


def _write_csv(outcomes: Outcomes, file: IO[str]) -> int:
    """What is no text or number stands as JSON; null is an empty field."""
    table = csv.writer(file)
    table.writerow([column.name for column in outcomes.columns])
    count = 0
    for row in outcomes.rows():
        table.writerow([_cell(value) for value in row.values()])
        count += 1
    return count


def _write_parquet(outcomes: Outcomes, to: Path) -> int:
    count = 0
    with _named(to), pq.ParquetWriter(to, outcomes.schema, compression="zstd") as writer:
        for table in outcomes.tables():
            writer.write_table(table)
            count += table.num_rows
    return count


def _cell(value: Json) -> Json:
    return to_json(value).decode() if isinstance(value, (dict, list, bool)) else value
