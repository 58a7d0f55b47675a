"""What a job, a batch and an outcome are: the contract between producer and worker.

Plain values; no I/O, no Celery, no Redis. How rows and outcomes look in Redis: ``worker.codec``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flavor.errors import ErrorInfo, InputError
from flavor.prices import Price
from flavor.types import Json, StrEnum, Task, Usage
from worker.columns import Kind

FINAL = "final"
"""The work after the last batch: finalizing the run. Leased and redelivered like a batch."""

FIRST, NORMAL, LAST = 0, 5, 9
"""Priorities: the lowest goes first, as with Celery on Redis (source: its guide, "Redis Message
Priorities")."""

BATCHES_PER_INPUT_FILE = 64
"""Batch ``n`` is row group ``n % 64`` of input file ``n // 64``: few files, one read per batch."""


PICO = 10**12
"""Costs are summed as whole 10^-12 dollars: sums of floats depend on their order."""


def ahead(priority: int) -> int:
    """The priority of a message that is published again: its batch has waited once already."""
    return max(FIRST, priority - 1)


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


VERDICT_FIELDS = {verdict: f"rows_{verdict.value}" for verdict in Verdict}
"""The names of their counts in Redis."""


@dataclass(slots=True, kw_only=True)  # not frozen: see flavor.types
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
class Cap:
    """The most that a job may spend, over all workers and resumes; None is no such cap."""

    total_tokens: int | None = None
    cost_usd: float | None = None

    def __bool__(self) -> bool:
        return self.total_tokens is not None or self.cost_usd is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """All that a worker must know of a job, fixed when it was submitted.

    It stands in Redis and, as ``job.json``, in the run: with Redis wiped the job can be rebuilt
    from it. ``model_uri`` is pinned (an alias became a version), so that all workers run the same
    model. ``columns`` maps the template's variables to the input's columns. ``params`` are the
    job's own request parameters. ``trace`` is the share of its requests that are logged as traces.
    ``input_columns`` are all the input's, in order; empty where it has too many names to speak of
    columns.
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
    cap: Cap = field(default_factory=Cap)
    priority: int = NORMAL
    is_input_logged: bool = True
    trace: float = 0.0
    input_columns: Mapping[str, Kind] = field(default_factory=dict)

    def to_json(self) -> str:
        """The spec as indented JSON, as it stands in ``job.json``."""
        values = dataclasses.asdict(self)
        text = json.dumps(values, indent=2, ensure_ascii=False)
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate: the name of a file that is no UTF-8
            return json.dumps(values, indent=2)
        return text

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
            values["cap"] = Cap(**values.get("cap", {}))
            columns = values.get("input_columns", {})
            values["input_columns"] = {name: Kind(kind) for name, kind in columns.items()}
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"this is no job spec that version can read: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A worker's right to a batch. Every write under it names its ``fence``: a later lease has a
    higher one, and what a former owner sends is refused.

    ``server`` is set where Redis was restarted since the job was submitted: the batch may be done
    although Redis has forgotten it. ``ending`` and ``is_capped`` are the job's at the claim: what
    it shall end as, if not by its rows, and whether it may spend only so much.
    """

    job_id: str
    batch: str
    fence: int
    deliveries: int
    server: str | None = None
    ending: JobState | None = None
    is_capped: bool = False
