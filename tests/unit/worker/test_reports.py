"""What workers tell of a job adds up, whatever their version and whatever they wait for."""

from __future__ import annotations

import pytest

from worker.limiter import _CAUSES
from worker.reports import Report, Wait, join, read_report, wait_of


def test_a_report_is_read_as_it_was_written() -> None:
    report = Report(in_flight=3, waiting_for="Redis", rows_per_s=1.5, latencies={400: 2})

    assert read_report(report.to_json(1000), since_ms=999) == report


def test_a_report_of_a_silent_worker_is_none() -> None:
    assert read_report(Report(in_flight=3).to_json(1000), since_ms=1000) is None


def test_a_report_of_an_older_version_is_understood() -> None:
    """Workers are replaced one after another."""
    said = b'{"in_flight": 3, "waiting_for": "Redis", "at_ms": 1000}'

    assert read_report(said, since_ms=0) == Report(in_flight=3, waiting_for="Redis")


def test_reports_add_up() -> None:
    pace = join(
        [
            Report(in_flight=1, rows_per_s=2.0, latencies={7: 1}),
            Report(in_flight=2, rows_per_s=0.5, latencies={7: 1, 8: 4}, waiting_for="Redis"),
            Report(waiting_for="tokens per minute"),
            Report(waiting_for="tokens per minute"),
        ]
    )

    assert (pace.in_flight, pace.rows_per_s, pace.latencies) == (3, 2.5, {7: 2, 8: 4})
    assert pace.waits == {Wait.REDIS: 0.25, Wait.TOKENS: 0.5}
    assert pace.waiting_for == "Redis"
    assert join([]).waiting_for is None


@pytest.mark.parametrize(
    ("words", "wait"),
    [
        *zip(_CAUSES.values(), [Wait.REQUESTS, Wait.TOKENS, Wait.PAUSE, Wait.REDIS], strict=False),
        ("the endpoint, which is down: connection refused", Wait.DOWN),
        ("concurrency (12 at once)", Wait.CONCURRENCY),
        ("the cap", Wait.CAP),
        ("something new", Wait.OTHER),
        ("", None),
    ],
)
def test_every_wait_has_a_kind(words: str, wait: Wait | None) -> None:
    assert wait_of(words) is wait
