"""What a job, a batch and an outcome are: the contract between producer and worker.

Plain values and their encodings; no I/O, no Celery, no Redis. Whoever reads Redis or a run's
``job.json`` reads it through this module, so a change of form is a change here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from flavor.errors import ErrorInfo, InputError
from flavor.prices import Price
from flavor.types import Json, Row, StrEnum, Task, Usage

FINAL = "final"
"""The work after the last batch: finalizing the run. Leased and redelivered like a batch."""

BATCHES_PER_INPUT_FILE = 64
"""Batch ``n`` is row group ``n % 64`` of input file ``n // 64``: few files, one read per batch."""


class JobState(StrEnum):
    """Where a job stands. OpenAI's Batch API has the same words, but for ``paused``."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    PAUSED = "paused"  # a cap was reached, or the endpoint refuses every request
    COMPLETED = "completed"  # every row has its outcome, dead rows included
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class Verdict(StrEnum):
    """How a row ended. Closed: a new ending is a new member, never a free string."""

    SUCCEEDED = "succeeded"
    REJECTED = "rejected"  # the API refuses this input; a retry cannot help
    EXHAUSTED = "exhausted"  # every attempt failed for a passing reason
    CANCELLED = "cancelled"

    @property
    def is_dead(self) -> bool:
        """Whether the row is listed as a failure and can be retried."""
        return self in (Verdict.REJECTED, Verdict.EXHAUSTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The final record of one row: written once, never updated.

    ``output`` is text, or little-endian float32 bytes for an embedding. ``usage`` and ``cost_usd``
    are None where nobody knows them. ``latency_s`` is the last attempt's, without waiting.
    """

    row_id: str
    index: int
    verdict: Verdict
    output: str | bytes | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    attempts: int = 0
    latency_s: float | None = None
    request_id: str | None = None
    response_model: str | None = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the account may do in a minute; None is no limit that we know of."""

    requests_per_min: int | None = None
    tokens_per_min: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """All that a worker must know of a job, fixed when it was submitted.

    It stands in Redis and, as ``job.json``, in the run: with Redis wiped the job can be rebuilt
    from it. ``model_uri`` is pinned (an alias became a version), so that all workers run the same
    model. ``columns`` maps the template's variables to the input's columns. ``params`` are the
    job's own request parameters.
    """

    job_id: str
    name: str
    model_uri: str
    model_uri_given: str
    model_id: str | None
    task: Task
    openai_model: str | None
    rows: int
    batches: int
    batch_size: int
    input_name: str
    input_sha256: str
    created_at: str
    params: Mapping[str, Json] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    id_column: str | None = None
    params_column: str | None = None
    price: Price | None = None
    limits: Limits = field(default_factory=Limits)
    is_input_logged: bool = True

    def to_json(self) -> str:
        """The spec as indented JSON, as it stands in ``job.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> JobSpec:
        """Read what ``to_json`` wrote; fields of a later version are an error that says so.

        Raises:
            InputError: the text is no job spec of this version.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            values["task"] = Task(values["task"])
            price = values.get("price")
            values["price"] = Price(**price) if price is not None else None
            values["limits"] = Limits(**values.get("limits", {}))
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"this is no job spec that version can read: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A worker's right to a batch. Every write under it names its ``fence``: a later lease has a
    higher one, and what a former owner sends is refused."""

    job_id: str
    batch: str
    fence: int
    deliveries: int


_COMPRESSION = "zstd"


def encode_rows(rows: Sequence[Row]) -> bytes:
    """Pack a batch's rows for Redis: the raw size, then JSON under zstd."""
    values = [[r.row_id, r.index, r.values, r.params] for r in rows]
    try:
        raw = orjson.dumps(values)
    except TypeError:  # a lone surrogate: orjson refuses what JSON can escape
        raw = json.dumps(values, separators=(",", ":")).encode("ascii")
    packed: bytes = pa.compress(raw, codec=_COMPRESSION, asbytes=True)
    return len(raw).to_bytes(8, "little") + packed


def decode_rows(payload: bytes) -> list[Row]:
    """Read what ``encode_rows`` wrote.

    Raises:
        ValueError: the payload is not of that form.
    """
    try:
        size = int.from_bytes(payload[:8], "little")
        raw = pa.decompress(payload[8:], decompressed_size=size, codec=_COMPRESSION, asbytes=True)
        return [
            Row(row_id=row_id, index=index, values=values, params=params)
            for row_id, index, values, params in _loads(raw)
        ]
    except (pa.ArrowException, MemoryError, OverflowError, TypeError) as error:
        raise ValueError(f"no batch payload: {error}") from error


def encode_outcome(outcome: Outcome) -> bytes:
    """An outcome for Redis: a JSON array, and behind a NUL byte an embedding's raw floats."""
    output = outcome.output
    vector = output if isinstance(output, bytes) else None
    values = [
        outcome.row_id,
        outcome.index,
        outcome.verdict,
        None if vector is not None else output,
        outcome.finish_reason,
        _usage_values(outcome.usage),
        outcome.cost_usd,
        outcome.attempts,
        outcome.latency_s,
        outcome.request_id,
        outcome.response_model,
        _error_values(outcome.error),
    ]
    try:
        raw = orjson.dumps(values)
    except TypeError:  # a lone surrogate in an answer
        raw = json.dumps(values, separators=(",", ":")).encode("ascii")
    return raw if vector is None else b"%b\0%b" % (raw, vector)


def decode_outcome(blob: bytes) -> Outcome:
    """Read what ``encode_outcome`` wrote.

    Raises:
        ValueError: the bytes are not of that form.
    """
    raw, separator, vector = blob.partition(b"\0")
    try:
        (
            row_id,
            index,
            verdict,
            output,
            finish,
            usage,
            cost,
            attempts,
            latency,
            rid,
            model,
            error,
        ) = _loads(raw)
        return Outcome(
            row_id=row_id,
            index=index,
            verdict=Verdict(verdict),
            output=vector if separator else output,
            finish_reason=finish,
            usage=_usage(usage),
            cost_usd=cost,
            attempts=attempts,
            latency_s=latency,
            request_id=rid,
            response_model=model,
            error=_error(error),
        )
    except TypeError as error_:
        raise ValueError(f"no outcome: {error_}") from error_


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
