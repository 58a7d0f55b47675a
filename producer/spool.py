"""Validated rows on disk: the whole input is read and checked once, and only then is anything sent.

A ``Spool`` is a private temporary folder with the input's Parquet parts (``worker.inputs``) and the
batches as they go to Redis. Memory holds one batch, whatever the input's size; the disk holds about
as much as the input.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from flavor.errors import InputError
from flavor.types import Row
from producer.formats import Record
from producer.ids import IdCheck
from producer.source import SourceRow, SourceRows
from worker.columns import Columns
from worker.inputs import MAX_ROW_BYTES, InputWriter, to_json
from worker.jobs import BATCHES_PER_INPUT_FILE

DEFAULT_BATCH_SIZE = 200
DEFAULT_BATCH_BYTES = 4_000_000

PREVIEW_ROWS = 20
_PREVIEW_BYTES = 1 << 20

_FRAME = struct.Struct("<IQ")  # rows, bytes of the payload that follows


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How rows become batches.

    A batch ends at ``batch_size`` rows, or sooner where its records' JSON text would exceed
    ``batch_bytes``; a record above that is a batch of its own.
    """

    batch_size: int = DEFAULT_BATCH_SIZE
    batch_bytes: int = DEFAULT_BATCH_BYTES
    batches_per_file: int = BATCHES_PER_INPUT_FILE


class Payload(NamedTuple):
    """One batch as it goes to Redis."""

    batch: int
    rows: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """What a spool holds: ``preview`` the first rows, ``characters`` those of all rows' values."""

    rows: int
    batches: int
    skipped: int
    characters: int
    longest_characters: int
    input_files: tuple[Path, ...]
    preview: tuple[SourceRow, ...]
    columns: Columns
    payload_file: Path

    def payloads(self) -> Iterator[Payload]:
        """Yield the batches in order, read one at a time; as often as it is called."""
        with self.payload_file.open("rb") as file:
            for batch in range(self.batches):
                rows, size = _FRAME.unpack(file.read(_FRAME.size))
                yield Payload(batch, rows, file.read(size))


class Spool:
    """A private folder that holds one input's rows until they are sent; gone when the block ends.

    ``encode`` makes a batch's payload. ``has_ids`` says that the rows' ids came from the input and
    may repeat. ``folder`` is where to make the folder, by default where ``TMPDIR`` says.
    """

    def __init__(
        self,
        encode: Callable[[list[Row]], bytes],
        *,
        options: BatchOptions | None = None,
        has_ids: bool = False,
        folder: Path | None = None,
    ) -> None:
        self._encode = encode
        self._options = options or BatchOptions()
        self._has_ids = has_ids
        self._parent = folder
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Spool:
        self._folder = tempfile.TemporaryDirectory(prefix="batch-spool-", dir=self._parent)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def write(self, rows: Iterable[SourceRow]) -> Spooled:
        """Take all rows to disk, in batches. Once per spool.

        Raises:
            InputError: there are no rows, a row is too big, two rows have the same id, or the disk
                is full; and whatever reading ``rows`` raises.
        """
        if self._folder is None:
            raise RuntimeError("a spool is written inside its with block")
        folder = Path(self._folder.name)
        with _translated_errors(folder):
            return self._write(rows, folder)

    def _write(self, rows: Iterable[SourceRow], folder: Path) -> Spooled:
        ids = IdCheck(folder) if self._has_ids else None
        payload_file = folder / "payloads.bin"
        with (
            InputWriter(folder, batches_per_file=self._options.batches_per_file) as parts,
            payload_file.open("wb") as payloads,
        ):
            batches = _Batches(self._options, parts=parts, payloads=payloads, encode=self._encode)
            for batch in batches.cut(rows):
                batches.write(batch)
                if ids is not None:
                    ids.add([row.row_id for row in batch.rows])
        skipped = rows.skipped if isinstance(rows, SourceRows) else 0
        if batches.rows == 0:
            raise _no_rows(rows)
        if ids is not None:
            ids.check(parts.files)
        return Spooled(
            rows=batches.rows,
            batches=batches.batches,
            skipped=skipped,
            characters=batches.characters,
            longest_characters=batches.longest_characters,
            input_files=tuple(parts.files),
            preview=tuple(batches.preview),
            columns=batches.columns,
            payload_file=payload_file,
        )


def acceptable(rows: Iterable[SourceRow], *, has_ids: bool) -> Iterator[SourceRow]:
    """Pass rows on that shall not be sent, with what a spool would say of them; keeps ids alone.

    Raises:
        InputError: a row is too big; or, after the last one, two have the same id.
    """
    with tempfile.TemporaryDirectory(prefix="batch-ids-") as name, _translated_errors(Path(name)):
        ids, unnoted, noted = IdCheck(Path(name)), list[SourceRow](), 0
        with InputWriter(Path(name)) as parts:
            for row in rows:
                _check_size(row.record, len(to_json(row.record.values)))
                yield row
                if has_ids:
                    unnoted.append(row)
                if len(unnoted) == DEFAULT_BATCH_SIZE:
                    noted = _note(unnoted, ids, parts, first=noted)
            if unnoted:
                _note(unnoted, ids, parts, first=noted)
        if has_ids:
            ids.check(parts.files)


def _note(rows: list[SourceRow], ids: IdCheck, parts: InputWriter, *, first: int) -> int:
    row_ids = [row.row.row_id for row in rows]
    ids.add(row_ids)
    parts.write(
        first_index=first,
        row_ids=row_ids,
        sources=[row.record.source for row in rows],
        lines=[row.record.line for row in rows],
        rows=[b"{}"] * len(rows),
    )
    rows.clear()
    return first + len(row_ids)


@dataclass(slots=True)
class _Batch:
    """Rows on their way to disk, with their records as JSON text."""

    rows: list[Row] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)


class _Batches:
    """All that a spool knows while it writes: how many rows and batches, and how long they are."""

    def __init__(
        self,
        options: BatchOptions,
        *,
        parts: InputWriter,
        payloads: BinaryIO,
        encode: Callable[[list[Row]], bytes],
    ) -> None:
        self.rows = 0
        self.batches = 0
        self.characters = 0
        self.longest_characters = 0
        self.preview: list[SourceRow] = []
        self.columns = Columns()
        self._preview_bytes = 0
        self._options = options
        self._parts = parts
        self._payloads = payloads
        self._encode = encode

    def cut(self, rows: Iterable[SourceRow]) -> Iterator[_Batch]:
        """Cut a stream of rows into batches, by count and by size."""
        batch = _Batch()
        batch_bytes = 0
        most_rows, most_bytes = self._options.batch_size, self._options.batch_bytes
        for source_row in rows:
            record = source_row.record
            text = to_json(record.values)
            size = len(text)
            if batch.rows and (len(batch.rows) == most_rows or batch_bytes + size > most_bytes):
                yield batch
                batch = _Batch()
                batch_bytes = 0
            _check_size(record, size)
            batch.rows.append(source_row.row)
            batch.records.append(record)
            batch.texts.append(text)
            self.columns.add(record.values)
            batch_bytes += size
            if len(self.preview) < PREVIEW_ROWS:
                self._show(source_row, size)
        if batch.rows:
            yield batch

    def write(self, batch: _Batch) -> None:
        """Append a batch to the parts and to the payloads."""
        rows = batch.rows
        self._parts.write(
            first_index=self.rows,
            row_ids=[row.row_id for row in rows],
            sources=[record.source for record in batch.records],
            lines=[record.line for record in batch.records],
            rows=batch.texts,
        )
        payload = self._encode(rows)
        self._payloads.write(_FRAME.pack(len(rows), len(payload)))
        self._payloads.write(payload)
        lengths = [
            sum([len(v) if type(v) is str else len(to_json(v)) for v in row.values.values()])
            for row in rows
        ]
        self.characters += sum(lengths)
        self.longest_characters = max(self.longest_characters, *lengths)
        self.rows += len(rows)
        self.batches += 1

    def _show(self, source_row: SourceRow, size: int) -> None:
        # The first row always; after it only what fits, as rows may have 10 MB each.
        if not self.preview or self._preview_bytes + size <= _PREVIEW_BYTES:
            self.preview.append(source_row)
            self._preview_bytes += size


def _no_rows(rows: Iterable[SourceRow]) -> InputError:
    if isinstance(rows, SourceRows) and rows.first_skip is not None:
        return InputError(
            f"no rows to send: all {rows.skipped:,} were left out; the first: {rows.first_skip}"
        )
    return InputError("no rows to send: the input is empty")


def _check_size(record: Record, size: int) -> None:
    if size > MAX_ROW_BYTES:
        most = f"{MAX_ROW_BYTES >> 20} MiB are the most"
        raise InputError(f"{record.place}: the row takes {size >> 20:,} MiB; {most}")


@contextmanager
def _translated_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of the disk: the reader has translated its own
        raise InputError(
            f"the rows cannot be kept in {folder}: {error.strerror or error}; "
            "name a folder with more room in TMPDIR"
        ) from error
