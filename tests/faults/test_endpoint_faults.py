"""An endpoint that throttles, fails, breaks its answers or is gone: every row ends well."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.jobs import assert_all_succeeded, submit, wait_for_end
from tests.system import System, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.faults]


def test_every_row_survives_20_percent_429_and_2_percent_500_without_a_retry_storm(
    system: System, write_rows: Callable[[int], Path], figure: Callable[[str], None]
) -> None:
    rows = 200
    system.simulator.configure(
        throttle_rate=0.2, throttle_retry_after_s=1.0, error_rate=0.02, latency_s=0.05
    )
    for _ in range(2):
        system.start_worker()
    job_id = submit(system, write_rows(rows), "--batch-size", "50")
    wait_for_end(system, job_id)

    assert_all_succeeded(system, job_id, rows)
    stats = system.simulator.stats()
    figure(f"{stats['requests'] / rows:.2f} requests per row: {stats['errors']}")
    assert stats["requests"] <= 1.4 * rows
    assert stats["rows_paid_twice"] == 0


def test_an_endpoint_that_is_gone_for_a_while_burns_no_attempt(
    system: System, write_rows: Callable[[int], Path], figure: Callable[[str], None]
) -> None:
    """Stopped, it accepts connections and says nothing; then each request times out."""
    rows = 400
    system.simulator.configure(latency_s=0.3)
    system.start_worker(BATCH_CONCURRENCY="16", BATCH_MAX_ATTEMPTS="2")
    job_id = submit(system, write_rows(rows), "--batch-size", "50")
    wait_until(lambda: system.simulator.stats()["accepted"] > 100, 60)

    system.simulator.configure(unavailable_rate=1.0, throttle_retry_after_s=0.5)
    wait_until(lambda: "down" in (system.status(job_id)["waiting_for"] or ""))
    before = system.simulator.stats()["requests"]
    time.sleep(6)
    probes = system.simulator.stats()["requests"] - before
    system.simulator.configure(unavailable_rate=0.0)
    wait_for_end(system, job_id)

    figure(f"{probes} requests in 6 s while the endpoint was down")
    assert probes <= 8
    assert_all_succeeded(system, job_id, rows)


def test_an_endpoint_that_hangs_is_waited_for(
    system: System, write_rows: Callable[[int], Path]
) -> None:
    rows = 200
    system.simulator.configure(latency_s=0.2)
    system.start_worker(BATCH_CONCURRENCY="16", BATCH_REQUEST_TIMEOUT_S="2")
    job_id = submit(system, write_rows(rows), "--batch-size", "50")
    wait_until(lambda: system.simulator.stats()["accepted"] > 50, 60)

    system.simulator.process.send_signal(signal.SIGSTOP)
    time.sleep(5)
    system.simulator.process.send_signal(signal.SIGCONT)
    wait_for_end(system, job_id)

    assert_all_succeeded(system, job_id, rows)


def test_an_exhausted_quota_pauses_the_job_and_resume_continues_it(
    system: System, write_rows: Callable[[int], Path]
) -> None:
    rows = 300
    system.simulator.configure(quota_tokens=1500, latency_s=0.05)
    system.start_worker(BATCH_CONCURRENCY="16")
    job_id = submit(system, write_rows(rows), "--batch-size", "25")
    wait_for_end(system, job_id, expected=4)
    status = system.status(job_id)
    assert status["state"] == "paused"
    assert "quota" in status["reason"]
    assert 0 < status["rows"]["succeeded"] < rows

    system.simulator.configure(quota_tokens=None)
    resumed = system.producer("resume", job_id, "--wait")

    assert resumed.returncode == 0, resumed.stderr
    assert_all_succeeded(system, job_id, rows)
    assert system.simulator.stats()["rows_paid_twice"] == 0


def test_answers_that_are_no_answers_cost_an_attempt_and_no_row(
    system: System, write_rows: Callable[[int], Path]
) -> None:
    """Not JSON, cut off in the middle, reset, without choices."""
    rows = 300
    system.simulator.configure(
        garbage_rate=0.05, truncate_rate=0.05, reset_rate=0.05, no_choices_rate=0.05
    )
    system.start_worker(BATCH_MAX_ATTEMPTS="10")
    job_id = submit(system, write_rows(rows), "--batch-size", "50")
    wait_for_end(system, job_id)

    found = assert_all_succeeded(system, job_id, rows)
    twice = system.simulator.stats()["rows_paid_twice"]
    assert 0 < twice <= found["rows_in_doubt"]


def test_answers_without_usage_are_answers_whose_tokens_nobody_knows(
    system: System, write_rows: Callable[[int], Path]
) -> None:
    system.simulator.configure(no_usage_rate=1.0)
    system.start_worker()
    job_id = submit(system, write_rows(50), "--batch-size", "25")
    wait_for_end(system, job_id)

    assert_all_succeeded(system, job_id, 50)
    assert system.simulator.stats()["accepted"] == 50
