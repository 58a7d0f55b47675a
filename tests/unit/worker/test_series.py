"""A job's series as it is drawn: rates as they were, time without idle stretches."""

from __future__ import annotations

import numpy as np
import pytest

from worker.series import MOST_POINTS, Series, is_drawn, make_series

START = 1_700_000_000_000


def _series(rows: list[tuple[int, float]], *, ended_s: int, total: float) -> Series:
    return make_series(
        {"rows.succeeded": [(START + 1000 * at_s, value) for at_s, value in rows]},
        started_ms=START,
        ended_ms=START + 1000 * ended_s,
        totals={"rows.succeeded": total},
    )


def test_a_rate_is_the_growth_over_the_last_seconds() -> None:
    rows = [(at_s, 10.0 * at_s) for at_s in range(1, 60)]

    series = _series(rows, ended_s=60, total=600)

    assert series.at_s[0] == 0
    assert series.at_s[-1] == 60
    assert series.rate("rows.succeeded", "rows.rejected") == pytest.approx(np.full(61, 10.0))


def test_a_job_without_a_single_sample_has_its_start_and_its_end() -> None:
    series = _series([], ended_s=2, total=10)

    assert series.at_s.tolist() == [0, 2]
    assert series.rate("rows.succeeded").tolist() == [5, 5]


def test_a_job_that_never_started_has_its_end() -> None:
    series = make_series({}, started_ms=None, ended_ms=START, totals={})

    assert len(series) == 1
    assert series.rate("rows.succeeded").tolist() == [0]


def test_a_week_between_a_job_and_its_retry_takes_no_room() -> None:
    """And the rows that the retry takes back are no negative rate."""
    week_s = 7 * 24 * 3600
    before = [(at_s, 10.0 * at_s) for at_s in range(100)]
    after = [(week_s + at_s, 900 + 10.0 * at_s) for at_s in range(10)]

    series = _series([*before, *after], ended_s=week_s + 10, total=1000)

    assert series.at_s[-1] < 200
    assert series.rate("rows.succeeded").min() == 0


def test_a_long_series_is_thinned_and_keeps_its_ends() -> None:
    rows = [(at_s, float(at_s)) for at_s in range(1, 10_000)]

    series = _series(rows, ended_s=10_000, total=10_000)

    assert len(series) <= MOST_POINTS + 1
    assert (series.at_s[0], series.at_s[-1]) == (0, 10_000)
    assert series.values["rows.succeeded"][-1] == 10_000


def test_waits_are_those_that_were() -> None:
    history = {
        "rows.succeeded": [(START, 1.0), (START + 1000, 2.0)],
        "waiting.redis": [(START, 0.0)],
        "waiting.tokens_per_min": [(START + 1000, 0.5)],
    }

    series = make_series(history, started_ms=START, ended_ms=START + 2000, totals={})

    assert {name: share.tolist() for name, share in series.waits.items()} == {
        "tokens_per_min": [0, 0.5, 0]
    }


def test_what_is_not_drawn_is_not_read() -> None:
    drawn = {"rows.succeeded", "requests.sent", "waiting.redis", "limit.tokens_per_min"}

    assert {name for name in {*drawn, "tokens.cached", "cost.usd"} if is_drawn(name)} == drawn
