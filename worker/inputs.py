"""The input's rows as Parquet parts: how the producer writes them and everybody reads them back.

A part holds ``jobs.BATCHES_PER_INPUT_FILE`` batches, one row group each, so that any batch is read
alone: batch ``n`` is row group ``n % 64`` of ``rows-00000{n // 64}.parquet``. A row stands in its
part as the JSON text of all its columns, since rows of one JSONL file need not have the same ones.
Local files only: who stores or fetches them is not this module's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from flavor.errors import InputError
from flavor.types import Json
from worker.jobs import BATCHES_PER_INPUT_FILE

SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("row", pa.string(), nullable=False),
    ]
)

MAX_ROW_BYTES = 64 << 20
"""What a row may hold at most. A longer one is taken for a broken file."""

# Statistics, and dictionaries of texts that all differ, cost time and are never asked; counting
# columns shrink to nothing as differences (with zstd alone: a third slower, and bigger files).
_WRITER_OPTIONS: dict[str, Any] = {
    "compression": {"row": "zstd", "row_id": "zstd"},
    "column_encoding": {"index": "DELTA_BINARY_PACKED", "line": "DELTA_BINARY_PACKED"},
    "use_dictionary": ["source"],
    "write_statistics": False,
}

_LARGEST_EXACT_INT = 2.0**63


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRow:
    """One row as the input had it: ``values`` are all its columns, wanted by the model or not."""

    index: int
    row_id: str
    source: str
    line: int
    values: dict[str, Json]


class Place(NamedTuple):
    """Where a batch's input stands."""

    file_name: str
    row_group: int


def place_of(batch: int, *, batches_per_file: int = BATCHES_PER_INPUT_FILE) -> Place:
    """Name the part and the row group that hold a batch."""
    return Place(_file_name(batch // batches_per_file), batch % batches_per_file)


def read_input_batch(path: str | Path, row_group: int) -> Iterator[InputRow]:
    """Read one batch's rows, in order.

    Raises:
        InputError: the file is no part of ours, or ends before that row group.
    """
    try:
        with pq.ParquetFile(path) as part:
            columns = part.read_row_group(row_group, columns=SCHEMA.names)
        for index, row_id, source, line, row in zip(
            *(columns.column(name).to_pylist() for name in SCHEMA.names), strict=True
        ):
            values = from_json(row)
            yield InputRow(index=index, row_id=row_id, source=source, line=line, values=values)
    except (pa.ArrowException, OSError, KeyError, IndexError, ValueError) as error:
        raise InputError(f"{path}: row group {row_group} cannot be read: {error}") from error


def read_row_ids(path: str | Path) -> Iterator[pa.RecordBatch]:
    """Read a part's ``row_id``, ``source`` and ``line`` alone, batch by batch."""
    with pq.ParquetFile(path) as part:
        for row_group in range(part.num_row_groups):
            yield from part.read_row_group(
                row_group, columns=["row_id", "source", "line"]
            ).to_batches()


def find_rows(path: str | Path, row_ids: Set[str]) -> Iterator[tuple[int, InputRow]]:
    """The rows of a part that have one of these ids, each with its row group, in order.

    Only row groups that hold one are read whole. ``row_ids`` is asked, never listed: it may hold as
    many as the job has rows, and a row group is 200 of them.
    """
    with pq.ParquetFile(path) as part:
        for row_group in range(part.num_row_groups):
            ids = part.read_row_group(row_group, columns=["row_id"]).column(0).to_pylist()
            if any(row_id in row_ids for row_id in ids):
                for row in read_input_batch(path, row_group):
                    if row.row_id in row_ids:
                        yield row_group, row


class InputWriter:
    """Writes batches into parts in a folder, in order. Use it as a context manager."""

    def __init__(self, folder: Path, *, batches_per_file: int = BATCHES_PER_INPUT_FILE) -> None:
        self.files: list[Path] = []
        self._folder = folder
        self._batches_per_file = batches_per_file
        self._batches = 0
        self._part: pq.ParquetWriter | None = None

    def __enter__(self) -> InputWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def write(
        self,
        *,
        first_index: int,
        row_ids: Sequence[str],
        sources: Sequence[str],
        lines: Sequence[int],
        rows: Sequence[bytes],
    ) -> None:
        """Append one batch. ``rows`` are JSON texts as ``to_json`` makes them."""
        if self._part is None or self._batches % self._batches_per_file == 0:
            self._open_next()
        assert self._part is not None  # noqa: S101 - for the type checker; just opened
        # Half the time of pa.array(…, pa.string()) on lists: our own JSON is known to be UTF-8.
        columns = [
            pa.array(np.arange(first_index, first_index + len(row_ids))),
            pa.array(row_ids, pa.string()),
            pa.array(sources, pa.string()),
            pa.array(np.array(lines, np.int64)),
            pa.array(rows, pa.binary()).view(pa.string()),
        ]
        self._part.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA), len(row_ids))
        self._batches += 1

    def _open_next(self) -> None:
        self._close()
        path = (
            self._folder
            / place_of(self._batches, batches_per_file=self._batches_per_file).file_name
        )
        self.files.append(path)
        self._part = pq.ParquetWriter(path, SCHEMA, **_WRITER_OPTIONS)

    def _close(self) -> None:
        if self._part is not None:
            self._part.close()
            self._part = None


def to_json(values: Json) -> bytes:
    """A value, such as a row's columns, as JSON text.

    NaN becomes null; lone surrogates and integers above 64 bits survive.
    """
    try:
        return orjson.dumps(values)
    except TypeError:  # a lone surrogate, or an integer above 64 bits: orjson refuses both
        text = json.dumps(values, separators=(",", ":"))
        if "NaN" in text or "Infinity" in text:  # perhaps only in a text: reading it tells
            text = json.dumps(from_json(text), separators=(",", ":"))
        return text.encode("ascii")


def from_json(text: str | bytes) -> Json:
    """Read JSON as people write it: NaN and infinities are null.

    Lone surrogates survive, and integers above 64 bits keep their digits.

    Raises:
        ValueError: the text is no JSON (``json.JSONDecodeError``, which knows where), nests too
            deeply, or is no UTF-8 (``UnicodeDecodeError``).
    """
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError:
        return _from_odd_json(text)
    return _from_odd_json(text) if _has_huge_number(values) else values


def _has_huge_number(value: Json) -> bool:
    """Whether orjson may have made a float of an integer. Runs once per row, so it is terse."""
    if type(value) is dict:
        value = value.values()
    elif type(value) is not list:
        value = (value,)
    for inner in value:
        kind = type(inner)
        if kind is float:
            if abs(inner) >= _LARGEST_EXACT_INT:
                return True
        elif (kind is dict or kind is list) and _has_huge_number(inner):
            return True
    return False


def _from_odd_json(text: str | bytes) -> Json:
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        return json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if abs(number) != float("inf") else None


def _file_name(file: int) -> str:
    return f"rows-{file:06d}.parquet"
