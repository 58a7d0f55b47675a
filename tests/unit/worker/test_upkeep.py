"""What a process does beside its batches: no outcome is forgotten, no batch stays lost."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import cast

import pytest
from redis.asyncio import Redis

from flavor.errors import BatchError, StoreError
from flavor.types import Request
from tests.unit.worker.making import (
    JOB,
    claim,
    end_lease,
    make_ledger,
    make_outcome,
    make_spec,
    submit_batches,
    until,
)
from tests.unit.worker.processes import open_batches, open_worker
from worker.broker import publish
from worker.checkpoint import flush
from worker.jobs import Limits
from worker.process import Process
from worker.reports import read_report
from worker.stop import StopReason
from worker.store import Store
from worker.upkeep import _beat, _reap, tolerant


async def test_a_row_that_waits_for_its_turn_is_no_request_in_flight(
    redis: Redis, tmp_path: Path
) -> None:
    """At one request a minute one of three is in flight, however many slots they hold."""
    request = Request(path="/x", body={}, rows=1, estimated_tokens=1)
    async with open_batches(redis, tmp_path) as (worker, (batch,)):
        limits = Limits(requests_per_min=1)
        batch.lane = lane = worker.process.lanes.of("endpoint", "gpt-x", limits, job_id=JOB)
        waits = [asyncio.ensure_future(lane.reserve(request, batch.sending)) for _ in range(3)]
        batch.in_flight = 3
        await until(lambda: any(wait.done() for wait in waits))
        await _beat(worker.process)
        (told,) = await redis.hvals(f"job:{{{JOB}}}:workers")
        lane.release(next(wait.result() for wait in waits if wait.done()))
        batch.lose()
        await asyncio.gather(*waits, return_exceptions=True)

    said = read_report(cast("bytes", told), since_ms=0)
    assert said is not None
    assert (said.in_flight, lane.in_flight) == (1, 0)


async def test_a_beat_renews_the_leases(redis: Redis, tmp_path: Path) -> None:
    async with open_batches(redis, tmp_path, batches=2) as (worker, batches):
        await end_lease(redis, "0")
        await end_lease(redis, "1")

        await _beat(worker.process)

        assert await worker.ledger.expired(JOB) == []
        assert [batch.sending.reason for batch in batches] == [None, None]


async def test_a_beat_notices_a_lost_lease(redis: Redis, tmp_path: Path) -> None:
    async with open_batches(redis, tmp_path) as (worker, (batch,)):
        await end_lease(redis)
        await worker.ledger.expired(JOB)

        await _beat(worker.process)

    assert batch.holding.reason is StopReason.LEASE_LOST


async def test_a_beat_hears_of_a_pause(redis: Redis, tmp_path: Path) -> None:
    async with open_batches(redis, tmp_path) as (worker, (batch,)):
        await worker.process.store.pause(JOB, "no quota")

        await _beat(worker.process)

    assert (batch.sending.reason, batch.holding.reason) == (StopReason.PAUSED, None)


async def test_a_beat_hears_of_a_cancellation(redis: Redis, tmp_path: Path) -> None:
    async with open_batches(redis, tmp_path) as (worker, (batch,)):
        await worker.process.store.cancel(JOB)

        await _beat(worker.process)

    assert (batch.sending.reason, batch.holding.reason) == (StopReason.CANCELLED, None)


async def test_a_beat_reports_what_the_process_does(redis: Redis, tmp_path: Path) -> None:
    async with open_batches(redis, tmp_path, batches=2) as (worker, batches):
        for batch in batches:
            batch.in_flight = 4
        batches[0].record([make_outcome(0, latency_s=0.25)])
        await flush(worker.process)

        await _beat(worker.process)

    status = await Store(redis).status(JOB)
    assert status is not None
    assert status.requests.in_flight == 8
    assert status.pace.rows_per_s > 0
    assert sum(status.pace.latencies.values()) == 1


async def test_a_worker_says_when_it_has_stopped_to_work_on_a_job(
    redis: Redis, tmp_path: Path
) -> None:
    """Else its last words would count for as long as a dead worker's."""
    async with open_batches(redis, tmp_path) as (worker, (batch,)):
        batch.in_flight = 4
        await _beat(worker.process)
        worker.process.open.clear()

        await _beat(worker.process)

        assert not worker.process.meter.recent
    status = await Store(redis).status(JOB)
    assert status is not None
    assert status.requests.in_flight == 0


async def test_a_beat_does_not_wait_for_mlflow(redis: Redis, tmp_path: Path) -> None:
    """A lease that is not renewed in time is lost, and its rows are paid for twice."""
    async with open_batches(redis, tmp_path) as (worker, _):
        await _beat(worker.process)

    assert worker.runs.metric_calls == 0


async def test_a_draft_whose_producer_died_is_thrown_away(redis: Redis, tmp_path: Path) -> None:
    async with open_worker(redis, tmp_path) as worker:
        await Store(redis).begin(make_spec())
        await redis.zadd("jobs:drafts", {JOB: 1})

        await _reap(worker.process)

    assert await redis.keys("job:*") == []
    assert await redis.zcard("jobs:drafts") == 0


async def test_a_paused_jobs_batches_are_not_published_again(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)
    await redis.zadd(f"job:{{{JOB}}}:queued", {"0": 1})
    async with open_worker(redis, tmp_path) as worker:
        await worker.process.store.pause(JOB, "no quota")

        await _reap(worker.process)

        assert worker.published() == []


async def test_the_batches_of_a_dead_worker_are_published_again(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis, 3)
    for batch in "012":
        await claim(make_ledger(redis, "dead"), batch)
    await end_lease(redis, "0")
    await end_lease(redis, "2")
    async with open_worker(redis, tmp_path) as worker:
        await _reap(worker.process)
        first = worker.published()
        await _reap(worker.process)

        assert first == [(JOB, "0"), (JOB, "2")]
        assert worker.published() == []


async def test_as_many_messages_are_published_again_as_the_broker_has_too_few(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis, 2)
    await redis.zadd(f"job:{{{JOB}}}:queued", {"0": 1, "1": 1})
    async with open_worker(redis, tmp_path) as worker:
        await _reap(worker.process)
        await redis.zadd(f"job:{{{JOB}}}:queued", {"0": 1, "1": 1})
        await _reap(worker.process)  # the messages above still wait
        both = worker.published()
        publish(worker.process.app, JOB, name="reviews", batches={"1": 3})
        await _reap(worker.process)

        assert both == [(JOB, "0"), (JOB, "1")]
        assert worker.published() == [(JOB, "1"), (JOB, "0")]


async def test_without_jobs_there_is_nothing_to_reap(redis: Redis, tmp_path: Path) -> None:
    async with open_worker(redis, tmp_path) as worker:
        await _reap(worker.process)

        assert worker.published() == []


@pytest.mark.parametrize(
    ("error", "event"), [(StoreError("away"), "upkeep_delayed"), (BatchError("?"), "upkeep_failed")]
)
async def test_an_outage_ends_no_loop(
    redis: Redis,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    error: BatchError,
    event: str,
) -> None:
    async def fail(_: Process) -> None:
        raise error

    async with open_worker(redis, tmp_path) as worker:
        with caplog.at_level(logging.WARNING):
            await tolerant(fail, worker.process)

    assert [record.__dict__["event"] for record in caplog.records] == [event]
