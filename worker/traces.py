"""The door to MLflow's traces: a sample of a job's requests, with messages, answers and tokens.

Off unless the job asks for it: one trace costs MLflow 36 ms of CPU. They are written by a thread
that starts with the first of them (so after any fork) and that nothing waits for: where it cannot
keep up, or MLflow is away, traces are dropped and counted; the outcomes are the record, not they.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flavor.errors import BatchError
from flavor.types import Json, Task, Usage
from worker.jobs import JobSpec, Outcome
from worker.runs import Runs

if TYPE_CHECKING:
    from worker.trip import Trip

log = logging.getLogger(__name__)

QUEUE_SIZE = 256
"""Traces that wait for the thread; some 10 s of its work."""

CLOSE_S = 10.0

_SHOWN_INPUTS = 20
"""Of the texts that share an embeddings request, so many are shown: it may have 2,048."""

_SPAN_TYPES = {Task.CHAT: "CHAT_MODEL", Task.COMPLETIONS: "LLM", Task.EMBEDDINGS: "EMBEDDING"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One request as it will stand in the Traces tab. Times are the wall clock's."""

    spec: JobSpec
    body: Json
    payload: Json | None
    outcomes: Sequence[Outcome]
    started_ns: int
    ended_ns: int


class Traces:
    """Takes requests from the event loop, writes them from a thread of its own."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._waiting: queue.Queue[Trace | None] = queue.Queue(QUEUE_SIZE)
        self._thread: threading.Thread | None = None
        self._experiment_id = lru_cache(maxsize=64)(self._read_experiment_id)
        self.dropped = 0

    def of(self, spec: JobSpec) -> Callable[[Trip, Sequence[Outcome]], None]:
        """What a batch of this job shows its requests to. It never waits and never fails."""
        if not spec.trace:
            return lambda *_: None

        def trace(trip: Trip, outcomes: Sequence[Outcome]) -> None:
            if is_sampled(spec.job_id, outcomes[0].index, share=spec.trace):
                self._put(_seen(spec, trip, outcomes))

        return trace

    def close(self) -> None:
        """Write what waits, for at most ``CLOSE_S``. Blocks."""
        if self._thread is None:
            return
        ends_s = time.monotonic() + CLOSE_S
        with suppress(queue.Full):
            self._waiting.put(None, timeout=CLOSE_S)
        self._thread.join(max(0.0, ends_s - time.monotonic()))
        if self._thread.is_alive():  # it is a daemon: it ends with the process
            self._drop(self._waiting.qsize())

    def _put(self, trace: Trace) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="traces", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(trace)
        except queue.Full:
            self._drop(1)

    def _drop(self, traces: int) -> None:
        if not self.dropped:
            log.warning("traces dropped", extra={"event": "traces_dropped"})
        self.dropped += traces

    def _write_all(self) -> None:
        # MLflow's own queue drops what is too much in silence; ours is in front of it.
        os.environ.setdefault("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
        while (trace := self._waiting.get()) is not None:
            self._write_one(trace)

    def _write_one(self, trace: Trace) -> None:
        try:
            _write(trace, self._experiment_id(trace.spec.job_id))
        except BatchError:
            self._drop(1)

    def _read_experiment_id(self, job_id: str) -> str:
        return str(self._runs.get(job_id).info.experiment_id)


def is_sampled(job_id: str, index: int, *, share: float) -> bool:
    """Whether the request that begins with this row is in the job's sample: always the same ones.

    A row that is sent again after a crash is in the sample, or not, as before.
    """
    return zlib.crc32(f"{job_id}:{index}".encode()) < share * 2**32


def _seen(spec: JobSpec, trip: Trip, outcomes: Sequence[Outcome]) -> Trace:
    """The request as it is now: the span lasts as long as its last attempt, waiting excluded."""
    ended_ns = time.time_ns()
    latency_s = trip.response.latency_s if trip.response else 0.0
    return Trace(
        spec=spec,
        body=trip.request.body,
        payload=trip.response.payload if trip.response else None,
        outcomes=outcomes,
        started_ns=ended_ns - int(latency_s * 1e9),
        ended_ns=ended_ns,
    )


def _write(trace: Trace, experiment_id: str) -> None:
    import mlflow  # costs seconds, and most jobs trace nothing
    from mlflow.entities import SpanStatus, SpanStatusCode
    from mlflow.tracing.constant import TraceMetadataKey

    spec, first = trace.spec, trace.outcomes[0]
    metadata = {TraceMetadataKey.SOURCE_RUN: spec.job_id}
    if spec.model_id:
        metadata[TraceMetadataKey.MODEL_ID] = spec.model_id
    span = mlflow.start_span_no_context(
        spec.task.value,
        span_type=_SPAN_TYPES[spec.task],
        inputs=_shown_body(trace.body),
        attributes=_attributes(trace),
        tags={"batch.job": spec.name, "batch.verdict": first.verdict.value},
        metadata=metadata,
        experiment_id=experiment_id,
        start_time_ns=trace.started_ns,
    )
    error = next((outcome.error for outcome in trace.outcomes if outcome.error), None)
    status = (
        SpanStatus(SpanStatusCode.ERROR, f"{error.type}: {error.message}")
        if error
        else SpanStatus(SpanStatusCode.OK)
    )
    span.end(outputs=_shown_payload(trace.payload), status=status, end_time_ns=trace.ended_ns)


def _attributes(trace: Trace) -> dict[str, Any]:
    from mlflow.tracing.constant import SpanAttributeKey, TokenUsageKey

    spec, first = trace.spec, trace.outcomes[0]
    usages = [outcome.usage for outcome in trace.outcomes if outcome.usage]
    values: dict[str, Any] = {
        key: value
        for key, value in trace.body.items()
        if key not in ("messages", "input", "prompt")
    }
    values |= {
        "row_id": first.row_id,
        "rows": len(trace.outcomes),
        "attempts": first.attempts,
        SpanAttributeKey.MESSAGE_FORMAT: "openai",
        SpanAttributeKey.MODEL: str(trace.body.get("model", spec.openai_model)),
        SpanAttributeKey.MODEL_PROVIDER: "openai",
    }
    if first.request_id:
        values["request_id"] = first.request_id
    if usages:
        values[SpanAttributeKey.CHAT_USAGE] = {
            TokenUsageKey.INPUT_TOKENS: _sum(usages, "prompt_tokens"),
            TokenUsageKey.OUTPUT_TOKENS: _sum(usages, "completion_tokens"),
            TokenUsageKey.TOTAL_TOKENS: _sum(usages, "total_tokens"),
        }
    return values


def _sum(usages: Sequence[Usage], field: str) -> int:
    return sum(getattr(usage, field) for usage in usages)


def _shown_body(body: Json) -> Json:
    texts = body.get("input")
    if not isinstance(texts, list) or len(texts) <= _SHOWN_INPUTS:
        return dict(body)
    return {**body, "input": [*texts[:_SHOWN_INPUTS], f"… and {len(texts) - _SHOWN_INPUTS} more"]}


def _shown_payload(payload: Json) -> Json:
    """Vectors are not for reading: how many there are is."""
    if not isinstance(payload, dict) or payload.get("object") != "list":
        return payload
    vectors = payload.get("data") or []
    return {**payload, "data": f"{len(vectors)} embeddings"}
