"""``producer jobs`` in a terminal: whatever its width, nothing that is shown is cut in half."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from producer.commands.jobs import _table
from worker.jobs import JobState, Verdict
from worker.status import JobStatus, Tokens

JOB = "9c06f10fdb5b455da707934947876731"


def _status(**changes: Any) -> JobStatus:
    values: dict[str, Any] = {
        "job_id": JOB,
        "name": "a rather long name of a job, and then some",
        "state": JobState.IN_PROGRESS,
        "rows_total": 1_234_567,
        "rows": {Verdict.SUCCEEDED: 765_432, Verdict.REJECTED: 12},
        "tokens": Tokens(total=98_765_432),
        "cost_usd": 12.5,
        "created_ms": 1_700_000_000_000,
    }
    return JobStatus(**{**values, **changes})


def _shown(width: int, **changes: Any) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(_table([_status(**changes)], width=width))
    return file.getvalue()


@pytest.mark.parametrize("width", range(64, 200, 7))
def test_what_is_shown_is_whole(width: int) -> None:
    head, row = _shown(width).splitlines()

    assert JOB in row
    assert "in_progress" in row
    for column, value in {
        "ROWS": "765,444/1,234,567", "DEAD": " 12 ", "TOKENS": "98,765,432", "COST": "$12.50",
    }.items():  # fmt: skip
        assert (column in head) == (value in f"{row} "), (column, row)
    assert max(len(head), len(row)) <= width


def test_with_room_for_all_everything_is_shown() -> None:
    head, row = _shown(200).splitlines()

    assert head.split() == ["JOB", "NAME", "STATE", "CREATED", "ROWS", "DEAD", "TOKENS", "COST"]
    assert "a rather long name of a job, and then some" in row


def test_tokens_that_nobody_counted_are_unknown() -> None:
    assert "unknown" in _shown(200, has_usage=False)


def test_without_jobs_the_columns_are_named() -> None:
    file = io.StringIO()
    Console(file=file, width=80).print(_table([], width=80))

    assert "JOB" in file.getvalue()
