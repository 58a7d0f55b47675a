"""Parquet into values that JSON can say, as a stream.

Times become ISO 8601 text and decimals text, so that no digit is lost; NaN is null; nested columns
stay nested. Bytes and durations have no such form and are refused with the column's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flavor.errors import InputError
from flavor.types import Json
from producer.tables import check_names
from producer.values import plain

_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 8192


def read_table(file: Path | IO[bytes], source: str) -> Iterator[dict[str, Json]]:
    """Yield a Parquet file's rows. Memory holds one record batch, not a row group.

    Raises:
        InputError: no Parquet, or a column of a type that JSON cannot say.
    """
    try:
        # Without a buffered stream pyarrow holds a whole row group's column chunks.
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as table:
            names = table.schema_arrow.names
            check_names(names, source)
            for batch in table.iter_batches(batch_size=_rows_per_batch(table)):
                columns = [
                    _values_of(batch.column(n), f"{source}: column {names[n]!r}")
                    for n in range(len(names))
                ]
                for row in zip(*columns, strict=True):
                    yield dict(zip(names, row, strict=True))
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{source}: no Parquet that can be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _rows_per_batch(table: pq.ParquetFile) -> int:
    """As many rows as make a few megabytes: rows of 10 MB must not come by the thousand."""
    groups = [table.metadata.row_group(n) for n in range(table.num_row_groups)]
    widest = max((g.total_byte_size / g.num_rows for g in groups if g.num_rows), default=1.0)
    return max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(widest, 1.0))))


def _values_of(column: Any, place: str) -> list[Json]:  # noqa: ANN401 - any of pyarrow's arrays
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _values_of(column.storage, place)
    if pa.types.is_dictionary(kind):
        return _values_of(column.dictionary_decode(), place)
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        return _iso_texts(column)
    if pa.types.is_float16(kind):  # to_pylist would make numpy's own numbers of it
        column = column.cast(pa.float32())
    values: list[Json] = column.to_pylist()
    return values if _is_plain(kind) else [plain(value, place) for value in values]


def _is_plain(kind: pa.DataType) -> bool:
    is_kind = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_integer,
        pa.types.is_boolean,
        pa.types.is_null,
    )
    return any(test(kind) for test in is_kind)


def _iso_texts(column: Any) -> list[str | None]:  # noqa: ANN401 - any of pyarrow's arrays
    """Through pyarrow's own text, since Python's datetime has no nanoseconds."""
    texts = column.cast(pa.string())
    texts = pc.replace_substring(texts, " ", "T")
    # Zeros behind the second are the column's unit, not its content.
    iso: list[str | None] = pc.replace_substring_regex(
        texts, r"\.0+(Z|[+-]\d+)?$", r"\1"
    ).to_pylist()
    return iso
