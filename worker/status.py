"""How a job stands, wherever that was read: from Redis while it runs, from its run afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone

from flavor.types import Json
from worker.jobs import JobState, Verdict


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
    retried: int = 0
    throttled: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """How a job stands. ``cost_usd`` is None where the price is unknown, never 0."""

    job_id: str
    name: str
    state: JobState
    rows_total: int
    rows: dict[Verdict, int]
    tokens: Tokens = field(default_factory=Tokens)
    requests: Requests = field(default_factory=Requests)
    cost_usd: float | None = None
    created_ms: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    waiting_for: str | None = None
    reason: str | None = None

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
        if self.started_ms is None or self.state is not JobState.IN_PROGRESS or not self.rows_done:
            return None
        elapsed_s = max(0.001, datetime.now(tz=timezone.utc).timestamp() - self.started_ms / 1000)
        return round(elapsed_s * (self.rows_total - self.rows_done) / self.rows_done, 1)

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
                "prompt": self.tokens.prompt,
                "completion": self.tokens.completion,
                "total": self.tokens.total,
                "cached": self.tokens.cached,
                "reasoning": self.tokens.reasoning,
            },
            "requests": {
                "sent": self.requests.sent,
                "retried": self.requests.retried,
                "throttled": self.requests.throttled,
                "in_flight": self.requests.in_flight,
            },
            "cost_usd": self.cost_usd,
        }


def _iso(moment_ms: int | None) -> str | None:
    if moment_ms is None:
        return None
    return datetime.fromtimestamp(moment_ms / 1000, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
