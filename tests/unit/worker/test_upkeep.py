"""What a process does beside its batches: no outcome is forgotten, no batch stays lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
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
from tests.unit.worker.processes import Worker, open_worker
from worker.broker import publish
from worker.codec import decode_outcomes
from worker.jobs import Lease, Limits
from worker.open_batch import OpenBatch
from worker.pending import Pending
from worker.process import Process
from worker.reports import read_report
from worker.stop import StopReason
from worker.store import Store
from worker.upkeep import _beat, _reap, flush, flush_regularly, tolerant


@asynccontextmanager
async def _working(
    redis: Redis, folder: Path, *, batches: int = 1
) -> AsyncIterator[tuple[Worker, list[OpenBatch]]]:
    """A process that has every batch of a job open."""
    await submit_batches(redis, batches)
    async with open_worker(redis, folder) as worker:
        opened = []
        for number in range(batches):
            lease = await claim(worker.ledger, str(number))
            batch = OpenBatch(lease, make_spec(), meter=worker.process.meter)
            worker.process.open[JOB, str(number)] = batch
            opened.append(batch)
        yield worker, opened


async def _saved(redis: Redis, batch: int = 0) -> dict[int, str]:
    blobs = cast("dict[bytes, bytes]", await redis.hgetall(f"job:{{{JOB}}}:outcomes:{batch}"))
    saved = [outcome for blob in blobs.values() for outcome in decode_outcomes(blob)]
    return {outcome.index: str(outcome.output) for outcome in saved}


async def test_a_row_that_waits_for_its_turn_is_no_request_in_flight(
    redis: Redis, tmp_path: Path
) -> None:
    """At one request a minute one of three is in flight, however many slots they hold."""
    request = Request(path="/x", body={}, rows=1, estimated_tokens=1)
    async with _working(redis, tmp_path) as (worker, (batch,)):
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


async def test_outcomes_of_all_batches_are_written(redis: Redis, tmp_path: Path) -> None:
    async with _working(redis, tmp_path, batches=2) as (worker, (one, other)):
        one.record([make_outcome(0), make_outcome(1)])
        other.record([make_outcome(3)])

        await flush(worker.process)
        await flush(worker.process)  # nothing waits any more

    assert await _saved(redis, 0) == {0: "answer 0", 1: "answer 1"}
    assert await _saved(redis, 1) == {3: "answer 3"}
    assert not one.pending


async def test_batches_that_end_together_wait_for_one_checkpoint(
    redis: Redis, tmp_path: Path
) -> None:
    """Each wrote by itself, one after another: with many of them the last waited for all."""
    async with _working(redis, tmp_path, batches=3) as (worker, (one, other, going_on)):
        one.record([make_outcome(0)])
        other.record([make_outcome(3)])
        write = worker.ledger.checkpoint

        async def checkpoint(pending: Sequence[tuple[Lease, Pending]]) -> list[bool]:
            going_on.record([make_outcome(6)])  # it came too late for this one
            return await write(pending)

        worker.ledger.checkpoint = checkpoint  # type: ignore[method-assign]
        await asyncio.gather(*(flush(worker.process, batch) for batch in (one, other)))

        assert (worker.ledger.checkpoints, bool(going_on.pending)) == (1, True)
    assert (await _saved(redis, 0), await _saved(redis, 1)) == ({0: "answer 0"}, {3: "answer 3"})


async def test_a_batch_whose_checkpoint_failed_under_another_writes_again(
    redis: Redis, tmp_path: Path
) -> None:
    async with _working(redis, tmp_path, batches=2) as (worker, (one, other)):
        one.record([make_outcome(0)])
        other.record([make_outcome(3)])
        worker.ledger.failures = 1

        failed, written = await asyncio.gather(
            flush(worker.process, one), flush(worker.process, other), return_exceptions=True
        )

    assert isinstance(failed, StoreError)
    assert written is None
    assert (await _saved(redis, 0), await _saved(redis, 1)) == ({0: "answer 0"}, {3: "answer 3"})


async def test_what_could_not_be_written_is_written_next_time(redis: Redis, tmp_path: Path) -> None:
    async with _working(redis, tmp_path) as (worker, (batch,)):
        batch.record([make_outcome(0)])
        batch.pending.sent = 1
        worker.ledger.failures = 1
        with pytest.raises(StoreError):
            await flush(worker.process)
        batch.record([make_outcome(1)])
        batch.pending.sent += 1

        await flush(worker.process)

    status = await Store(redis).status(JOB)
    assert status is not None
    assert await _saved(redis) == {0: "answer 0", 1: "answer 1"}
    assert (status.rows_done, status.requests.sent) == (2, 2)


async def test_while_redis_is_away_nothing_is_encoded_for_it(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each open batch tries again and again: with a gigabyte of vectors that took a whole core."""
    tries: list[str] = []

    async def refuse() -> None:
        tries.append("pulse")
        raise StoreError("Redis cannot be reached")

    async with _working(redis, tmp_path) as (worker, (batch,)):
        batch.record([make_outcome(0)])
        worker.ledger.failures = 1
        with monkeypatch.context() as away:
            away.setattr(worker.ledger, "pulse", refuse)
            for _ in range(4):
                with pytest.raises(StoreError):
                    await flush(worker.process)
        encoded = worker.ledger.checkpoints

        await flush(worker.process)

    assert (encoded, len(tries)) == (1, 3)
    assert await _saved(redis) == {0: "answer 0"}
    assert not worker.process.gate.is_closed


async def test_a_lost_lease_stops_its_batch_and_no_other(redis: Redis, tmp_path: Path) -> None:
    async with _working(redis, tmp_path, batches=2) as (worker, (lost, held)):
        await end_lease(redis, "0")
        await claim(make_ledger(redis, "another"), "0")
        lost.record([make_outcome(0)])
        held.record([make_outcome(3)])

        await flush(worker.process)

    assert lost.sending.reason is lost.holding.reason is StopReason.LEASE_LOST
    assert held.sending.reason is None
    assert (await _saved(redis, 0), await _saved(redis, 1)) == ({}, {3: "answer 3"})


async def test_outcomes_are_written_soon_after_they_arrive(redis: Redis, tmp_path: Path) -> None:
    """Within a tenth of a second, and through an outage."""
    async with _working(redis, tmp_path) as (worker, (batch,)):
        worker.ledger.failures = 1
        batch.record([make_outcome(0)])
        task = asyncio.ensure_future(flush_regularly(worker.process))
        await until(lambda: not batch.pending)
        await flush(worker.process)  # returns after the write that runs
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    assert await _saved(redis) == {0: "answer 0"}


async def test_a_beat_renews_the_leases(redis: Redis, tmp_path: Path) -> None:
    async with _working(redis, tmp_path, batches=2) as (worker, batches):
        await end_lease(redis, "0")
        await end_lease(redis, "1")

        await _beat(worker.process)

        assert await worker.ledger.expired(JOB) == []
        assert [batch.sending.reason for batch in batches] == [None, None]


async def test_a_beat_notices_a_lost_lease(redis: Redis, tmp_path: Path) -> None:
    async with _working(redis, tmp_path) as (worker, (batch,)):
        await end_lease(redis)
        await worker.ledger.expired(JOB)

        await _beat(worker.process)

    assert batch.holding.reason is StopReason.LEASE_LOST


async def test_a_beat_hears_of_a_pause(redis: Redis, tmp_path: Path) -> None:
    async with _working(redis, tmp_path) as (worker, (batch,)):
        await worker.process.store.pause(JOB, "no quota")

        await _beat(worker.process)

    assert (batch.sending.reason, batch.holding.reason) == (StopReason.PAUSED, None)


async def test_a_beat_hears_of_a_cancellation(redis: Redis, tmp_path: Path) -> None:
    async with _working(redis, tmp_path) as (worker, (batch,)):
        await worker.process.store.cancel(JOB)

        await _beat(worker.process)

    assert (batch.sending.reason, batch.holding.reason) == (StopReason.CANCELLED, None)


async def test_a_beat_reports_what_the_process_does(redis: Redis, tmp_path: Path) -> None:
    async with _working(redis, tmp_path, batches=2) as (worker, batches):
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
    async with _working(redis, tmp_path) as (worker, (batch,)):
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
    async with _working(redis, tmp_path) as (worker, _):
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
