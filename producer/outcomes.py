"""A job's outcomes as one stream of rows, in the input's order, beside the input's own columns."""

from __future__ import annotations

import csv
import io
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flavor.errors import InputError
from flavor.types import Json, StrEnum
from worker.inputs import to_json
from worker.jobs import JobSpec, Verdict
from worker.parts import part_schema, read_part
from worker.run_files import InputReader, part_number
from worker.runs import OUTPUTS, Runs

_DEAD = pa.array([verdict.value for verdict in Verdict if verdict.is_dead])


class ResultFormat(StrEnum):
    """How results are written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


def read_results(
    runs: Runs, spec: JobSpec, *, only_failed: bool = False
) -> Iterator[dict[str, Json]]:
    """Every outcome that has been published so far, in input order, as a stream.

    A row has the columns of a part and, where the input was logged, ``input``: an object of the
    input's columns. Blocks; memory holds one batch.
    """
    with tempfile.TemporaryDirectory(prefix="results-") as folder:
        inputs = InputReader(runs, spec, Path(folder))
        for path in runs.files(spec.job_id, OUTPUTS):
            local = runs.fetch(spec.job_id, path, Path(folder))
            part = read_part(local)
            local.unlink(missing_ok=True)
            if only_failed:
                part = part.filter(pc.is_in(part["verdict"], _DEAD))
            if not part.num_rows:
                continue
            values = inputs.of_batch(part_number(path))
            for row in part.to_pylist():
                if values is not None:
                    row["input"] = values.get(row["index"])
                yield row


def write_results(
    rows: Iterator[dict[str, Json]], spec: JobSpec, *, to: Path | None, form: ResultFormat
) -> int:
    """Write rows to a file or to stdout and return how many there were.

    Raises:
        InputError: Parquet is wanted on a terminal, or the file cannot be written.
    """
    if form is ResultFormat.PARQUET:
        if to is None:
            raise InputError("parquet needs a file: add -o results.parquet")
        return _write_parquet(rows, spec, to)
    with _opened(to) as file:
        return (
            _write_csv(rows, spec, file) if form is ResultFormat.CSV else _write_jsonl(rows, file)
        )


@contextmanager
def _opened(to: Path | None) -> Iterator[IO[str]]:
    """Of a text that has no UTF-8 (a lone surrogate) a question mark is left."""
    if to is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        yield sys.stdout
        return
    with _named(to), to.open("w", encoding="utf-8", errors="replace", newline="") as file:
        yield file


@contextmanager
def _named(to: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write results to {to}: {error.strerror or error}") from error


def _write_jsonl(rows: Iterator[dict[str, Json]], file: IO[str]) -> int:
    count = 0
    for row in rows:
        file.write(to_json(row).decode() + "\n")
        count += 1
    return count


def _write_csv(rows: Iterator[dict[str, Json]], spec: JobSpec, file: IO[str]) -> int:
    """Input columns stand last, as ``input.NAME``: those of the first row decide which."""
    writer: Any = None
    count = 0
    for row in rows:
        flat = _flat(row)
        if writer is None:
            names = list(flat) or part_schema(spec.task).names
            writer = csv.DictWriter(file, names, restval="", extrasaction="ignore")
            writer.writeheader()
        writer.writerow(flat)
        count += 1
    if writer is None:
        csv.writer(file).writerow(part_schema(spec.task).names)
    return count


def _write_parquet(rows: Iterator[dict[str, Json]], spec: JobSpec, to: Path) -> int:
    schema = part_schema(spec.task)
    if spec.is_input_logged:
        schema = schema.append(pa.field("input", pa.string()))
    count = 0
    with _named(to), pq.ParquetWriter(to, schema, compression="zstd") as writer:
        group: list[Mapping[str, Json]] = []
        for row in rows:
            if "input" in row:
                row["input"] = to_json(row["input"]).decode()
            group.append(row)
            count += 1
            if len(group) == 1000:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))
    return count


def _flat(row: Mapping[str, Json]) -> dict[str, Json]:
    flat = {name: _cell(value) for name, value in row.items() if name != "input"}
    values = row.get("input")
    if isinstance(values, dict):
        flat |= {f"input.{name}": _cell(value) for name, value in values.items()}
    return flat


def _cell(value: Json) -> Json:
    return to_json(value).decode() if isinstance(value, (dict, list)) else value
