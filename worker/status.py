"""How a job stands, wherever that was read: from Redis while it runs, from its run afterwards."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone

from flavor.types import Json, Task
from worker.jobs import PICO, VERDICT_FIELDS, JobSpec, JobState, Verdict
from worker.reports import Pace, join, read_report

_RUNNING = (JobState.QUEUED, JobState.IN_PROGRESS)

_WORKER_SILENT_MS = 10_000
"""A worker not heard of for so long is left out of what the job is doing right now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Sums of usage over a job's outcomes."""

    prompt: int = 0
    completion: int = 0
    total: int = 0
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """HTTP calls of a job. ``in_flight`` is now, the others since the start."""

    sent: int = 0
    answered: int = 0
    retried: int = 0
    throttled: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """How a job stands. ``cost_usd`` is None where the price is unknown, never 0.

    ``rows_in_doubt`` may have been paid twice, or for nothing: their request brought no outcome,
    and nobody has said that it was not billed.
    """

    job_id: str
    name: str
    state: JobState
    rows_total: int
    rows: dict[Verdict, int]
    tokens: Tokens = field(default_factory=Tokens)
    requests: Requests = field(default_factory=Requests)
    rows_in_doubt: int = 0
    cost_usd: float | None = None
    created_ms: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    waiting_for: str | None = None
    reason: str | None = None
    rows_before: int = 0  # done before the job was resumed
    pace: Pace = field(default_factory=Pace)  # of its last seconds
    has_usage: bool = True  # False for a model that does not tell: unknown, not 0

    @property
    def rows_done(self) -> int:
        """Rows that have their outcome."""
        return sum(self.rows.values())

    @property
    def rows_dead(self) -> int:
        """Rows rejected or exhausted."""
        return sum(count for verdict, count in self.rows.items() if verdict.is_dead)

    @property
    def eta_s(self) -> float | None:
        """Seconds until the last row, at the average rate so far; None when nothing says so."""
        if self.state is not JobState.IN_PROGRESS or not self.rows_per_s:
            return None
        return round((self.rows_total - self.rows_done) / self.rows_per_s, 1)

    @property
    def rows_per_s(self) -> float:
        """Rows that got an outcome, cancelled ones left out, over the time since the start."""
        if self.started_ms is None:
            return 0.0
        now_s = datetime.now(tz=timezone.utc).timestamp()
        end_s = self.finished_ms / 1000 if self.finished_ms else now_s
        done = self.rows_done - self.rows_before - self.rows.get(Verdict.CANCELLED, 0)
        return max(0, done) / max(0.001, end_s - self.started_ms / 1000)

    def to_json(self) -> dict[str, Json]:
        """The object that ``status --json`` prints."""
        return {
            "job_id": self.job_id,
            "name": self.name,
            "state": self.state.value,
            "started_at": _iso(self.started_ms),
            "finished_at": _iso(self.finished_ms),
            "eta_s": self.eta_s,
            "waiting_for": self.waiting_for,
            "reason": self.reason,
            "rows": {"total": self.rows_total, **{v.value: n for v, n in self.rows.items()}},
            "tokens": {
                name: count if self.has_usage else None
                for name, count in asdict(self.tokens).items()
            },
            "requests": {
                "sent": self.requests.sent,
                "retried": self.requests.retried,
                "throttled": self.requests.throttled,
                "in_flight": self.requests.in_flight,
            },
            "cost_usd": self.cost_usd,
        }


def status_of(
    spec: JobSpec,
    *,
    job: dict[bytes, bytes],
    counts: dict[bytes, bytes],
    workers: dict[bytes, bytes],
    now_ms: int,
) -> JobStatus:
    """A job as Redis has it: its hashes, as they were read."""

    def count(name: str) -> int:
        return int(counts.get(name.encode(), 0))

    def moment(name: bytes) -> int | None:
        return int(job[name]) if name in job else None

    state = JobState(job[b"state"].decode())
    since_ms = now_ms - _WORKER_SILENT_MS
    reports = [read_report(said, since_ms=since_ms) for said in workers.values()]
    pace = join([report for report in reports if report])
    return JobStatus(
        job_id=spec.job_id,
        name=spec.name,
        state=state,
        rows_total=spec.rows,
        rows={verdict: count(name) for verdict, name in VERDICT_FIELDS.items()},
        tokens=Tokens(**{f.name: count(f"tokens_{f.name}") for f in fields(Tokens)}),
        requests=Requests(
            sent=count("requests_sent"),
            answered=count("requests_answered"),
            retried=count("requests_retried"),
            throttled=count("requests_throttled"),
            in_flight=pace.in_flight,
        ),
        rows_in_doubt=count("rows_in_doubt"),
        cost_usd=count("cost_pico") / PICO if spec.price else None,
        created_ms=moment(b"created_ms"),
        started_ms=moment(b"started_ms"),
        finished_ms=moment(b"finished_ms"),
        waiting_for=pace.waiting_for if state in _RUNNING else None,
        reason=job.get(b"reason", b"").decode() or None,
        rows_before=int(job.get(b"rows_before", 0)),
        pace=pace,
        has_usage=spec.task is not Task.PYFUNC,
    )


def _iso(moment_ms: int | None) -> str | None:
    if moment_ms is None:
        return None
    return datetime.fromtimestamp(moment_ms / 1000, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
