"""A job's time series as its run holds it, ready to be drawn. Pure arithmetic.

Histories come as MLflow has them: of every metric its points, each with the wall clock's time. A
job that was paused or retried has idle stretches: time is counted without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.recent import WINDOW_S

Floats = npt.NDArray[np.float64]
History = Mapping[str, Sequence[tuple[int, float]]]
"""Points of each metric: time in ms, and value."""

ROWS = ("rows.succeeded", "rows.rejected", "rows.exhausted")
COUNTS = (*ROWS, "requests.sent", "requests.throttled", "tokens.total")
GAUGES = (
    "requests.in_flight",
    "limit.requests_per_min",
    "limit.tokens_per_min",
    "latency.p50_s",
    "latency.p95_s",
)
WAITING = "waiting."

MOST_POINTS = 600
"""Of a longer series every n-th point is drawn: no screen and no paper shows more."""

_IDLE_S = 60.0


def is_drawn(metric: str) -> bool:
    """Whether a metric's history is part of a series."""
    return metric in COUNTS or metric in GAUGES or metric.startswith(WAITING)


@dataclass(frozen=True, slots=True)
class Series:
    """Points in time, and at each of them the value of every metric: NaN where it has none."""

    at_s: Floats  # since the first, idle stretches left out
    values: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.at_s)

    @property
    def waits(self) -> dict[str, Floats]:
        """The share of workers that waited, by what they waited for."""
        return {
            name.removeprefix(WAITING): np.nan_to_num(values)
            for name, values in self.values.items()
            if name.startswith(WAITING) and np.nan_to_num(values).any()
        }

    def rate(self, *names: str) -> Floats:
        """By how much these counts grew in a second, together, over the last few seconds."""
        counts = sum((np.nan_to_num(self.values[name]) for name in names), np.zeros(len(self)))
        if len(self) < 2:
            return np.zeros(len(self))
        since = np.searchsorted(self.at_s, self.at_s - WINDOW_S, side="right") - 1
        since = np.clip(np.minimum(since, np.arange(len(self)) - 1), 0, None)
        grown, spans_s = counts - counts[since], self.at_s - self.at_s[since]
        rates = np.clip(grown, 0, None) / np.maximum(spans_s, 0.001)  # a retry takes rows back
        rates[0] = rates[1]
        return rates

    def has(self, name: str) -> bool:
        """Whether the metric has any point."""
        return name in self.values and not bool(np.isnan(self.values[name]).all())


def make_series(
    history: History, *, started_ms: int | None, ended_ms: int, totals: Mapping[str, float]
) -> Series:
    """The series of a job that ends now with ``totals``; its start is a point of zeros."""
    points = {name: dict(found) for name, found in history.items()}
    times = {at_ms for name in COUNTS for at_ms in points.get(name, ())}
    points = {name: points.get(name, {}) for name in {*COUNTS, *points}}
    if started_ms is not None and all(started_ms < at_ms for at_ms in times):
        times.add(started_ms)
        for name in COUNTS:
            points[name][started_ms] = 0.0
    times.add(ended_ms)
    for name in COUNTS:
        points[name][ended_ms] = totals.get(name, float("nan"))
    at_ms = _thinned(sorted(times))
    values = {
        name: np.array([found.get(at, float("nan")) for at in at_ms])
        for name, found in points.items()
    }
    return Series(_worked_s(at_ms), values)


def _thinned(times: list[int]) -> list[int]:
    step = -(-len(times) // MOST_POINTS)
    return [*times[:-1:step], times[-1]]


def _worked_s(times_ms: Sequence[int]) -> Floats:
    steps_s = np.diff(np.array(times_ms, dtype=np.float64) / 1000)
    usual_s = float(np.median(steps_s)) if len(steps_s) else 0.0
    return np.concatenate([[0.0], np.cumsum(np.minimum(steps_s, max(_IDLE_S, 5 * usual_s)))])
