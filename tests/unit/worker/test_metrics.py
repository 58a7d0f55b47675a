"""What Prometheus is told of a process: each figure by its name, read from the real server."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from tests.unit.worker.making import JOB, make_dead, make_outcome, submit_batches
from tests.unit.worker.processes import open_batches, open_worker
from worker.batch import run_batch
from worker.checkpoint import flush
from worker.jobs import Limits, Verdict
from worker.limiter import Limiter, Waits
from worker.meter import Meter
from worker.metrics import serve_metrics
from worker.stop import Stop


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    return {
        ":".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_prometheus_is_told_rows_tokens_and_requests(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)
    async with open_worker(redis, tmp_path) as worker:
        port = _free_port()
        serve_metrics(worker.process, host="127.0.0.1", port=port)
        before = await asyncio.to_thread(_scrape, port)

        await run_batch(worker.process, JOB, "0")
        after = await asyncio.to_thread(_scrape, port)

    assert before["batch_rows_total:succeeded"] == 0
    assert after["batch_rows_total:succeeded"] == 3
    assert after["batch_requests_sent_total"] == after["batch_requests_answered_total"] == 3
    assert after["batch_deliveries_total:done"] == 1
    assert after["batch_limiter_turns_total"] == 3
    assert after["batch_request_duration_seconds_count"] == sum(worker.process.meter.latencies)
    assert after["batch_slots"] == 8
    assert after["batch_checkpoint_lag_seconds"] == after["batch_open_batches"] == 0


async def test_a_port_that_is_taken_does_not_keep_a_worker_from_working(
    redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_worker(redis, tmp_path) as worker:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()

            serve_metrics(worker.process, host="127.0.0.1", port=other.getsockname()[1])

    assert "metrics are not served" in caplog.text


def test_the_meter_sums_outcomes_by_verdict_and_kind() -> None:
    meter = Meter()

    meter.count([make_outcome(0, latency_s=0.2, cost_usd=0.5), make_outcome(1), make_dead(2)])

    assert meter.rows == {Verdict.SUCCEEDED: 2, Verdict.REJECTED: 1}
    assert meter.tokens == {"prompt": 20, "completion": 10, "cached": 4, "reasoning": 2}
    assert meter.cost_usd == 0.5
    assert meter.latencies[2] == sum(meter.latencies) == 1  # from 0.1 to 0.25 s
    assert meter.latency_sum_s == 0.2


async def test_the_lag_is_that_of_the_outcome_that_has_waited_for_longest(
    redis: Redis, tmp_path: Path
) -> None:
    async with open_batches(redis, tmp_path, batches=3) as (worker, (one, other, _)):
        port = _free_port()
        serve_metrics(worker.process, host="127.0.0.1", port=port)
        one.record([make_outcome(0)])
        one.pending.since_s -= 3
        one.record([make_outcome(1)])
        other.record([make_outcome(3)])

        waiting = await asyncio.to_thread(_scrape, port)
        await flush(worker.process)
        written = await asyncio.to_thread(_scrape, port)

    assert waiting["batch_checkpoint_pending_rows"] == 3
    assert 3 <= waiting["batch_checkpoint_lag_seconds"] < 60
    assert written["batch_checkpoint_pending_rows"] == written["batch_checkpoint_lag_seconds"] == 0


async def test_waits_for_a_turn_are_summed(redis: Redis) -> None:
    waits = Waits()
    limiter = Limiter(redis, ("limit", "askers"), Limits(), waits=waits)
    await limiter.pause(0.05)

    await limiter.reserve(10, Stop())
    await limiter.reserve(10, Stop())

    assert waits.turns == 2
    assert 0.04 < waits.waited_s < 5


async def test_what_rows_wait_for_can_be_asked_from_another_thread(redis: Redis) -> None:
    """Prometheus asks in a thread of its own, which has no event loop."""
    limiter = Limiter(redis, ("limit", "askers"), Limits())
    await limiter.pause(5)

    assert await asyncio.to_thread(lambda: limiter.waiting_for) == "the endpoint's pause"
