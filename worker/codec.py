"""How rows and outcomes are written into Redis, and read back. Never executed: JSON and raw floats.

Whoever reads them reads them through this module, so a change of form is a change here. Bytes of
any other form are a ``ValueError``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import orjson
import pyarrow as pa

from flavor.errors import ErrorInfo
from flavor.types import Json, Row, Usage
from worker.jobs import Outcome, Verdict

MAX_PAYLOAD_BYTES = 1 << 30
"""More than any batch takes: a payload that claims more is garbage, not worth the memory."""

_COMPRESSION = "zstd"
# Size of the JSON text, rows (lua/claim.lua reads them, too), whether it needs the slow reader.
_HEAD = struct.Struct("<QI?")

HEAD_BYTES = _HEAD.size
"""So much of a payload tells ``row_count`` what it needs."""


def encode_rows(rows: Sequence[Row]) -> bytes:
    """Pack a batch's rows for Redis: a short head, then JSON under zstd."""
    values = [[r.row_id, r.index, r.values, r.params] for r in rows]
    is_odd = False
    try:
        raw = orjson.dumps(values)
    except TypeError:  # a lone surrogate or a huge integer: orjson refuses what JSON can say
        is_odd = True
        raw = json.dumps(values, separators=(",", ":")).encode("ascii")
    packed: bytes = pa.compress(raw, codec=_COMPRESSION, asbytes=True)
    return _HEAD.pack(len(raw), len(rows), is_odd) + packed


def row_count(head: bytes) -> int | None:
    """How many rows a payload has, from its first ``HEAD_BYTES`` alone; None where it is none."""
    try:
        _, rows, _ = _HEAD.unpack_from(head)
    except struct.error:
        return None
    return int(rows)


def decode_rows(payload: bytes) -> list[Row]:
    """Read what ``encode_rows`` wrote.

    Raises:
        ValueError: the payload is not of that form.
    """
    try:
        size, _, is_odd = _HEAD.unpack_from(payload)
        if size > MAX_PAYLOAD_BYTES:
            raise ValueError(f"no batch payload: it claims {size} bytes")
        packed = payload[_HEAD.size :]
        raw = pa.decompress(packed, decompressed_size=size, codec=_COMPRESSION, asbytes=True)
        return [
            Row(row_id=row_id, index=index, values=values, params=params)
            for row_id, index, values, params in (json.loads if is_odd else orjson.loads)(raw)
        ]
    except (pa.ArrowException, struct.error, OSError, RecursionError, TypeError) as error:
        raise ValueError(f"no batch payload: {error}") from error


def encode_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """Outcomes as one value for Redis: a JSON array of arrays, and behind a NUL byte raw floats.

    In an embedding's place stands how many bytes of the floats are its own. Together they are a
    small part of the work for Redis that they are one by one.
    """
    vectors = [outcome.output for outcome in outcomes if isinstance(outcome.output, bytes)]
    raw = _dumps(list(map(_outcome_values, outcomes)))
    return b"".join((raw, b"\0", *vectors)) if vectors else raw


def decode_outcomes(blob: bytes) -> list[Outcome]:
    """Read what ``encode_outcomes`` wrote, or a version that wrote them one by one.

    Raises:
        ValueError: the bytes are of neither form.
    """
    raw, separator, floats = blob.partition(b"\0")
    try:
        values = _loads(raw)
        if not isinstance(values[0], list):
            return [_outcome(values, floats if separator else values[3])]
        sizes = [one[3] if isinstance(one[3], int) else 0 for one in values]
        ends = list(accumulate(sizes))
        if ends[-1] != len(floats):
            raise ValueError(f"no outcomes: {len(floats)} bytes of floats in place of {ends[-1]}")
        return [
            _outcome(one, floats[end - size : end] if isinstance(one[3], int) else one[3])
            for one, size, end in zip(values, sizes, ends, strict=True)
        ]
    except (LookupError, RecursionError, TypeError) as error:
        raise ValueError(f"no outcome: {error}") from error


def _outcome_values(outcome: Outcome) -> list[Json]:
    output = outcome.output
    return [
        outcome.row_id,
        outcome.index,
        outcome.verdict,
        len(output) if isinstance(output, bytes) else output,
        outcome.finish_reason,
        _usage_values(outcome.usage),
        outcome.cost_usd,
        outcome.attempts,
        outcome.latency_s,
        outcome.request_id,
        outcome.response_model,
        _error_values(outcome.error),
    ]


def _outcome(values: Sequence[Json], output: str | bytes | None) -> Outcome:
    row_id, index, verdict, _, finish, usage, cost, attempts, latency, rid, model, error = values
    return Outcome(
        row_id=row_id,
        index=index,
        verdict=Verdict(verdict),
        output=output,
        finish_reason=finish,
        usage=_usage(usage),
        cost_usd=cost,
        attempts=attempts,
        latency_s=latency,
        request_id=rid,
        response_model=model,
        error=_error(error),
    )


def _dumps(values: Json) -> bytes:
    try:
        return orjson.dumps(values)
    except TypeError:  # a lone surrogate in an answer
        return json.dumps(values, separators=(",", ":")).encode("ascii")


def _loads(raw: bytes) -> Any:  # noqa: ANN401 - JSON of any form; the caller unpacks it
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return json.loads(raw)


def _usage_values(usage: Usage | None) -> list[int] | None:
    if usage is None:
        return None
    return [
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
    ]


def _usage(values: list[int] | None) -> Usage | None:
    if values is None:
        return None
    prompt, completion, total, cached, reasoning = values
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
    )


def _error_values(error: ErrorInfo | None) -> list[Json] | None:
    if error is None:
        return None
    return [error.type, error.message, error.status, error.code, error.request_id]


def _error(values: list[Json] | None) -> ErrorInfo | None:
    if values is None:
        return None
    kind, message, status, code, request_id = values
    return ErrorInfo(type=kind, message=message, status=status, code=code, request_id=request_id)
