"""A part: the outcomes of one batch as a Parquet file in the run. A pure function of these.

Written by workers, read by the finalizer, ``results`` and ``resume``. The columns are fixed: other
tools read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flavor.errors import ErrorInfo
from flavor.types import Task, Usage
from worker.jobs import Outcome, Verdict

_REPEATING = ["verdict", "finish_reason", "response_model", "error_type", "error_code"]
"""The columns that gain by a dictionary; to look for one in each took a fifth of the time."""

_TEXTS = {"row_id", "output", "error_message", "request_id"}
"""The columns that gain by zstd. Its start in every column took a quarter of the time to write a
part of 200 rows, and a third of that to read it; without it in the others a part is 6 % larger."""

_NO_USAGE = (None, None, None, None, None)


def part_name(batch: str | int) -> str:
    """The file name of a batch's part."""
    return f"batch-{int(batch):06d}.parquet"


def part_schema(task: Task) -> pa.Schema:
    """The columns of a part; only ``output`` differs between completions and embeddings."""
    output = pa.list_(pa.float32()) if task is Task.EMBEDDINGS else pa.string()
    return pa.schema(
        [
            ("row_id", pa.string()),
            ("index", pa.int64()),
            ("verdict", pa.string()),
            ("output", output),
            ("finish_reason", pa.string()),
            ("prompt_tokens", pa.int64()),
            ("completion_tokens", pa.int64()),
            ("total_tokens", pa.int64()),
            ("cached_tokens", pa.int64()),
            ("reasoning_tokens", pa.int64()),
            ("cost_usd", pa.float64()),
            ("attempts", pa.int32()),
            ("latency_s", pa.float64()),
            ("request_id", pa.string()),
            ("response_model", pa.string()),
            ("error_type", pa.string()),
            ("error_status", pa.int32()),
            ("error_code", pa.string()),
            ("error_message", pa.string()),
        ]
    )


def write_part(path: Path, outcomes: Sequence[Outcome], task: Task) -> None:
    """Write a batch's outcomes, in the order of their rows."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.index)
    schema = part_schema(task)
    columns = list(zip(*map(_values, ordered), strict=True)) or [()] * (len(schema) - 1)
    arrays = [
        _array(column, schema.field(name).type)
        for name, column in zip([n for n in schema.names if n != "output"], columns, strict=True)
    ]
    arrays.insert(schema.get_field_index("output"), _outputs(ordered, task))
    table = pa.Table.from_arrays(arrays, schema=schema)
    # Vectors neither compress nor have a useful least and most: to compress them by 7 % and to
    # compare them took a third of the time to write a part.
    usual = [name for name in schema.names if name != "output" or task is not Task.EMBEDDINGS]
    pq.write_table(
        table,
        path,
        compression={name: "zstd" if name in _TEXTS else "snappy" for name in usual},
        use_dictionary=_REPEATING,
        write_statistics=usual,
    )


def read_part(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A part's rows, in order; only the named columns, where any are named."""
    # Not read_table: to look at a part as a data set takes longer than to read it. Parts are read
    # side by side, so that threads of one part's own only cost.
    with pq.ParquetFile(path) as part:
        return part.read(columns=list(columns) if columns else None, use_threads=False)


def read_outcomes(path: Path) -> list[Outcome]:
    """A part's rows as outcomes again, as ``write_part`` was given them."""
    table = read_part(path)
    is_embedding = pa.types.is_list(table.schema.field("output").type)
    return [_outcome(row, is_embedding=is_embedding) for row in table.to_pylist()]


def _outcome(row: dict[str, Any], *, is_embedding: bool) -> Outcome:
    output = row["output"]
    if is_embedding and output is not None:
        output = np.asarray(output, "<f4").tobytes()
    names = [f"{kind}_tokens" for kind in ("prompt", "completion", "total", "cached", "reasoning")]
    has_usage = row["total_tokens"] is not None
    error = None
    if row["error_type"] is not None:
        error = ErrorInfo(
            type=row["error_type"],
            message=row["error_message"],
            status=row["error_status"],
            code=row["error_code"],
            request_id=row["request_id"],
        )
    return Outcome(
        row_id=row["row_id"],
        index=row["index"],
        verdict=Verdict(row["verdict"]),
        output=output,
        finish_reason=row["finish_reason"],
        usage=Usage(**{name: row[name] for name in names}) if has_usage else None,
        cost_usd=row["cost_usd"],
        attempts=row["attempts"],
        latency_s=row["latency_s"],
        request_id=row["request_id"],
        response_model=row["response_model"],
        error=error,
    )


def _values(outcome: Outcome) -> tuple[object, ...]:
    """All columns of a row but ``output``, in the schema's order."""
    error = outcome.error
    return (
        outcome.row_id,
        outcome.index,
        outcome.verdict.value,
        outcome.finish_reason,
        *_usage_values(outcome.usage),
        outcome.cost_usd,
        outcome.attempts,
        outcome.latency_s,
        outcome.request_id,
        outcome.response_model,
        *_error_values(error),
    )


def _usage_values(usage: Usage | None) -> tuple[int | None, ...]:
    if usage is None:
        return _NO_USAGE
    return (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
    )


def _error_values(error: ErrorInfo | None) -> tuple[str | int | None, ...]:
    if error is None:
        return (None, None, None, None)
    return (error.type, error.status, error.code, error.message)


def _outputs(outcomes: Sequence[Outcome], task: Task) -> pa.Array:
    if task is not Task.EMBEDDINGS:
        return _array([o.output for o in outcomes], pa.string())
    vectors = [o.output if isinstance(o.output, bytes) else None for o in outcomes]
    joined = b"".join(vector for vector in vectors if vector is not None)
    floats = pa.Array.from_buffers(pa.float32(), len(joined) // 4, [None, pa.py_buffer(joined)])
    ends = accumulate(len(vector) // 4 if vector is not None else 0 for vector in vectors)
    offsets = pa.array([0, *ends], pa.int32())
    is_missing = pa.array([vector is None for vector in vectors], pa.bool_())
    return pa.ListArray.from_arrays(offsets, floats, mask=is_missing)


def _array(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # a lone surrogate, which Parquet's UTF-8 cannot hold
        return pa.array([_replaced(value) for value in values], kind)


def _replaced(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
