"""What a process has done since it started, as plain numbers: counted here, shown by ``metrics``.

The job's own counts are in Redis and its exact totals in the run; these are for dashboards.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence

from worker.jobs import Outcome
from worker.recent import Recent

LATENCY_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Meter:
    """One per process. Written by its event loop, read from any thread."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.rows: Counter[str] = Counter()  # by verdict
        self.tokens: Counter[str] = Counter()  # by kind
        self.cost_usd = 0.0
        self.requests: Counter[str] = Counter()  # sent, answered, retried, throttled
        self.deliveries: Counter[str] = Counter()  # by how they ended
        self.latencies: list[int] = [0] * (len(LATENCY_BOUNDS_S) + 1)  # per bucket, not summed up
        self.latency_sum_s = 0.0
        self.recent: dict[str, Recent] = {}  # by job
        self._now_s = now_s

    def of_job(self, job_id: str) -> Recent:
        """What the process has done lately for a job that it works on."""
        return self.recent.setdefault(job_id, Recent(self._now_s))

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Count outcomes that are new."""
        for outcome in outcomes:
            self.rows[outcome.verdict] += 1
            self.cost_usd += outcome.cost_usd or 0.0
            if outcome.latency_s is not None:
                self.latencies[bisect_left(LATENCY_BOUNDS_S, outcome.latency_s)] += 1
                self.latency_sum_s += outcome.latency_s
            if outcome.usage is not None:
                self.tokens["prompt"] += outcome.usage.prompt_tokens
                self.tokens["completion"] += outcome.usage.completion_tokens
                self.tokens["cached"] += outcome.usage.cached_tokens
                self.tokens["reasoning"] += outcome.usage.reasoning_tokens

    def count_requests(self, *, sent: int, answered: int, retried: int, throttled: int) -> None:
        """Count requests made since the last call."""
        self.requests.update(sent=sent, answered=answered, retried=retried, throttled=throttled)
