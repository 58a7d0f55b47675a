"""How a job stands: the object that ``status --json`` prints."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from worker.jobs import JobState, Verdict
from worker.status import JobStatus, Requests, Tokens

ROWS = {
    Verdict.SUCCEEDED: 1200,
    Verdict.REJECTED: 1,
    Verdict.EXHAUSTED: 2,
    Verdict.CANCELLED: 0,
}


def _status(**changes: Any) -> JobStatus:
    values: dict[str, Any] = {
        "job_id": "job1",
        "name": "reviews",
        "state": JobState.IN_PROGRESS,
        "rows_total": 3708,
        "rows": ROWS,
        "tokens": Tokens(prompt=90211, completion=14100, total=104311),
        "requests": Requests(sent=1204, retried=3, in_flight=64),
        "cost_usd": 0.022,
        "started_ms": 1795341600000,
    }
    return JobStatus(**{**values, **changes})


def _started(seconds_ago: float) -> int:
    return int((time.time() - seconds_ago) * 1000)


def test_the_json_form_is_the_designs() -> None:
    printed = json.loads(json.dumps(_status(finished_ms=1795341661999).to_json()))

    eta_s = printed.pop("eta_s")
    assert isinstance(eta_s, float)
    assert printed == {
        "job_id": "job1",
        "name": "reviews",
        "state": "in_progress",
        "started_at": "2026-11-22T10:00:00Z",
        "finished_at": "2026-11-22T10:01:01Z",
        "waiting_for": None,
        "reason": None,
        "rows": {"total": 3708, "succeeded": 1200, "rejected": 1, "exhausted": 2, "cancelled": 0},
        "tokens": {
            "prompt": 90211,
            "completion": 14100,
            "total": 104311,
            "cached": 0,
            "reasoning": 0,
        },
        "requests": {"sent": 1204, "retried": 3, "throttled": 0, "in_flight": 64},
        "cost_usd": 0.022,
    }


def test_rows_done_and_dead() -> None:
    assert _status().rows_done == 1203
    assert _status().rows_dead == 3


def test_the_time_left_follows_the_average_rate() -> None:
    """100 of 400 rows in 10 s leave 30 s."""
    rows = {Verdict.SUCCEEDED: 100}

    status = _status(rows_total=400, rows=rows, started_ms=_started(10))

    assert status.eta_s == pytest.approx(30, abs=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"started_ms": None},
        {"state": JobState.PAUSED},
        {"state": JobState.COMPLETED},
        {"rows": dict.fromkeys(Verdict, 0)},
    ],
)
def test_where_nothing_tells_the_time_left_it_is_none(changes: dict[str, Any]) -> None:
    assert _status(**changes).eta_s is None


def test_what_has_not_happened_is_null() -> None:
    printed = _status(started_ms=None, cost_usd=None).to_json()

    assert printed["started_at"] is None
    assert printed["finished_at"] is None
    assert printed["cost_usd"] is None
