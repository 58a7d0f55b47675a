"""What a process says of a job's last seconds is what happened in them, and nothing older."""

from __future__ import annotations

import pytest

from tests.unit.worker.making import make_outcome
from worker.histogram import place_of
from worker.jobs import Verdict
from worker.recent import WINDOW_S, Recent


class _Clock:
    s = 1000.0

    def __call__(self) -> float:
        return self.s


def test_the_rate_is_that_of_the_window() -> None:
    clock = _Clock()
    recent = Recent(clock)

    for _ in range(200):  # 20 rows a second for ten seconds, then 5
        clock.s += 0.05
        recent.count([make_outcome(0)])
    fast = recent.rows_per_s
    for _ in range(40):
        clock.s += 0.2
        recent.count([make_outcome(0)])

    assert fast == pytest.approx(20, rel=0.05)
    assert recent.rows_per_s == pytest.approx(5, rel=0.05)


def test_a_jobs_first_second_is_not_spread_over_the_window() -> None:
    clock = _Clock()
    recent = Recent(clock)

    clock.s += 1
    recent.count([make_outcome(n) for n in range(30)])

    assert recent.rows_per_s == 30


def test_what_is_older_than_the_window_is_forgotten() -> None:
    clock = _Clock()
    recent = Recent(clock)
    recent.count([make_outcome(0, latency_s=9.0)])

    clock.s += WINDOW_S / 2
    recent.count([make_outcome(1, latency_s=0.5), make_outcome(2, latency_s=0.5)])
    both = recent.latencies
    clock.s += WINDOW_S / 2
    latter = recent.latencies
    clock.s += WINDOW_S

    assert both == {place_of(9.0): 1, place_of(0.5): 2}
    assert latter == {place_of(0.5): 2}
    assert (recent.latencies, recent.rows_per_s, recent.is_over) == ({}, 0.0, True)


def test_cancelled_rows_are_no_work() -> None:
    clock = _Clock()
    recent = Recent(clock)

    clock.s += 1
    recent.count([make_outcome(0, verdict=Verdict.CANCELLED, latency_s=None)])

    assert (recent.rows_per_s, recent.latencies) == (0.0, {})
