"""How outcomes get into Redis: in time, once, and not at all where the run has them first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from flavor.errors import LeaseLostError, StoreError
from flavor.types import Task
from tests.unit.worker.making import (
    JOB,
    claim,
    end_lease,
    make_dead,
    make_ledger,
    make_outcome,
    make_spec,
    until,
)
from tests.unit.worker.processes import open_batches, saved
from worker import checkpoint
from worker.checkpoint import count_off, flush, flush_regularly, secure
from worker.gate import Duty
from worker.jobs import Lease, Verdict
from worker.ledger import CountOff
from worker.pending import Pending, values_of
from worker.stop import StopReason
from worker.store import Store

VECTOR = bytes(8)


async def test_outcomes_of_all_batches_are_written(redis: Redis, tmp_path: Path) -> None:
    async with open_batches(redis, tmp_path, batches=2) as (worker, (one, other)):
        one.record([make_outcome(0), make_outcome(1)])
        other.record([make_outcome(3)])

        await flush(worker.process)
        await flush(worker.process)  # nothing waits any more

    assert await saved(redis, 0) == {0: "answer 0", 1: "answer 1"}
    assert await saved(redis, 1) == {3: "answer 3"}
    assert not one.pending


async def test_batches_that_end_together_wait_for_one_checkpoint(
    redis: Redis, tmp_path: Path
) -> None:
    """Each wrote by itself, one after another: with many of them the last waited for all."""
    async with open_batches(redis, tmp_path, batches=3) as (worker, (one, other, going_on)):
        one.record([make_outcome(0)])
        other.record([make_outcome(3)])
        write = worker.ledger.checkpoint

        async def checkpoint(pending: Sequence[tuple[Lease, Pending]]) -> list[bool]:
            going_on.record([make_outcome(6)])  # it came too late for this one
            return await write(pending)

        worker.ledger.checkpoint = checkpoint  # type: ignore[method-assign]
        await asyncio.gather(*(flush(worker.process, batch) for batch in (one, other)))

        assert (worker.ledger.checkpoints, bool(going_on.pending)) == (1, True)
    assert (await saved(redis, 0), await saved(redis, 1)) == ({0: "answer 0"}, {3: "answer 3"})


async def test_a_batch_whose_checkpoint_failed_under_another_writes_again(
    redis: Redis, tmp_path: Path
) -> None:
    async with open_batches(redis, tmp_path, batches=2) as (worker, (one, other)):
        one.record([make_outcome(0)])
        other.record([make_outcome(3)])
        worker.ledger.failures = 1

        failed, written = await asyncio.gather(
            flush(worker.process, one), flush(worker.process, other), return_exceptions=True
        )

    assert isinstance(failed, StoreError)
    assert written is None
    assert (await saved(redis, 0), await saved(redis, 1)) == ({0: "answer 0"}, {3: "answer 3"})


async def test_what_could_not_be_written_is_written_next_time(redis: Redis, tmp_path: Path) -> None:
    async with open_batches(redis, tmp_path) as (worker, (batch,)):
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
    assert await saved(redis) == {0: "answer 0", 1: "answer 1"}
    assert (status.rows_done, status.requests.sent) == (2, 2)


async def test_while_redis_is_away_nothing_is_encoded_for_it(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each open batch tries again and again: with a gigabyte of vectors that took a whole core."""
    tries: list[str] = []

    async def refuse() -> None:
        tries.append("pulse")
        raise StoreError("Redis cannot be reached")

    async with open_batches(redis, tmp_path) as (worker, (batch,)):
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
    assert await saved(redis) == {0: "answer 0"}
    assert not worker.process.gate.is_closed


async def test_a_lost_lease_stops_its_batch_and_no_other(redis: Redis, tmp_path: Path) -> None:
    async with open_batches(redis, tmp_path, batches=2) as (worker, (lost, held)):
        await end_lease(redis, "0")
        await claim(make_ledger(redis, "another"), "0")
        lost.record([make_outcome(0)])
        held.record([make_outcome(3)])

        await flush(worker.process)

    assert lost.sending.reason is lost.holding.reason is StopReason.LEASE_LOST
    assert held.sending.reason is None
    assert (await saved(redis, 0), await saved(redis, 1)) == ({}, {3: "answer 3"})


async def test_outcomes_are_written_soon_after_they_arrive(redis: Redis, tmp_path: Path) -> None:
    """Within a tenth of a second, and through an outage."""
    async with open_batches(redis, tmp_path) as (worker, (batch,)):
        worker.ledger.failures = 1
        batch.record([make_outcome(0)])
        task = asyncio.ensure_future(flush_regularly(worker.process))
        await until(lambda: not batch.pending)
        await flush(worker.process)  # returns after the write that runs
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    assert await saved(redis) == {0: "answer 0"}


async def test_vectors_are_written_when_their_part_is_long_in_coming(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "VECTORS_S", 1000)
    async with open_batches(redis, tmp_path, task=Task.EMBEDDINGS) as (worker, (batch,)):
        batch.record([make_outcome(0, output=VECTOR)])
        batch.pending.since_s -= 500
        batch.record([make_outcome(1, output=VECTOR)])
        await flush(worker.process)
        before = await saved(redis)
        batch.pending.since_s -= 500

        await flush(worker.process)

    assert before == {}
    assert await saved(redis) == {0: VECTOR, 1: VECTOR}


async def test_vectors_that_wait_keep_no_text_waiting(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "VECTORS_S", 1000)
    async with open_batches(redis, tmp_path, batches=2) as (worker, (vectors, texts)):
        vectors.spec = make_spec(task=Task.EMBEDDINGS)
        vectors.record([make_outcome(0, output=VECTOR)])
        texts.record([make_outcome(3)])

        await flush(worker.process)

    assert (await saved(redis, 0), await saved(redis, 1)) == ({}, {3: "answer 3"})


async def test_what_a_batch_leaves_behind_is_written_before_it_is_due(
    redis: Redis, tmp_path: Path
) -> None:
    """Whoever claims a batch that was given back must not send its rows again."""
    async with open_batches(redis, tmp_path, task=Task.EMBEDDINGS) as (worker, (batch,)):
        batch.rows = 3
        batch.record([make_outcome(0, output=VECTOR)])

        await secure(worker.process, batch)

    assert await saved(redis) == {0: VECTOR}


async def test_requests_alone_are_counted_at_the_next_look(redis: Redis, tmp_path: Path) -> None:
    async with open_batches(redis, tmp_path, task=Task.EMBEDDINGS) as (worker, (batch,)):
        batch.pending.sent = 2

        await flush(worker.process)

    status = await Store(redis).status(JOB)
    assert status is not None
    assert status.requests.sent == 2


async def test_a_closed_gate_opens_when_redis_is_back_though_nothing_waits(
    redis: Redis, tmp_path: Path
) -> None:
    async with open_batches(redis, tmp_path) as (worker, _):
        with suppress(StoreError), worker.process.gate.watched(Duty.CHECKPOINT):
            raise StoreError("Redis cannot be reached")
        flushing = asyncio.ensure_future(flush_regularly(worker.process))
        await until(lambda: not worker.process.gate.is_closed)
        flushing.cancel()
        with suppress(asyncio.CancelledError):
            await flushing


def test_what_is_only_counted_is_not_sent() -> None:
    kept, counted = (values_of([make_outcome(0, output=VECTOR)], is_kept=k) for k in (True, False))

    assert (VECTOR in kept[1], counted[1]) == (True, b"")
    assert kept[2:] == counted[2:]


async def test_outcomes_that_are_in_the_run_are_counted_and_not_kept(
    redis: Redis, tmp_path: Path
) -> None:
    async with open_batches(redis, tmp_path, batches=2) as (worker, (batch, _)):
        batch.record([make_outcome(0)])
        batch.pending.sent = 1
        await flush(worker.process)
        batch.record([make_outcome(1), make_dead(2)])
        batch.pending.sent += 2

        counted = await count_off(worker.process, batch)

        assert (worker.ledger.checkpoints, bool(batch.pending)) == (1, False)
        assert worker.process.meter.requests["sent"] == 3
    status = await Store(redis).status(JOB)
    assert status is not None
    assert counted is CountOff.COUNTED
    assert {verdict: count for verdict, count in status.rows.items() if count} == {
        Verdict.SUCCEEDED: 2,
        Verdict.REJECTED: 1,
    }
    assert (status.tokens.total, status.requests.sent) == (30, 3)


async def test_outcomes_whose_checkpoint_told_nothing_are_counted_once(
    redis: Redis, tmp_path: Path
) -> None:
    """They were written, the reply was lost, and they are pending still when their batch ends."""
    async with open_batches(redis, tmp_path, batches=2) as (worker, (batch, _)):
        batch.record([make_outcome(0), make_dead(1)])
        taken = batch.pending.take()
        await worker.ledger.checkpoint([(batch.lease, taken)])
        batch.pending.put_back(taken)
        batch.record([make_outcome(2)])

        await count_off(worker.process, batch)

    status = await Store(redis).status(JOB)
    assert status is not None
    assert status.rows_done == 3


async def test_a_batch_is_not_counted_off_while_its_outcomes_are_on_their_way(
    redis: Redis, tmp_path: Path
) -> None:
    """That write may fail: then they are counted with their batch, and not forgotten."""
    async with open_batches(redis, tmp_path, batches=2) as (worker, (batch, _)):
        batch.record([make_outcome(index) for index in range(3)])
        is_written = asyncio.Event()

        async def fail(_: Sequence[tuple[Lease, Pending]]) -> list[bool]:
            await is_written.wait()
            raise StoreError("Redis cannot be reached")

        worker.ledger.checkpoint = fail  # type: ignore[method-assign, assignment]
        flushed = asyncio.ensure_future(flush(worker.process))
        await until(lambda: not batch.pending)
        ended = asyncio.ensure_future(count_off(worker.process, batch))
        is_written.set()
        await ended
        with pytest.raises(StoreError):
            await flushed

    status = await Store(redis).status(JOB)
    assert status is not None
    assert status.rows_done == 3


async def test_a_batch_that_could_not_be_counted_off_keeps_what_waits(
    redis: Redis, tmp_path: Path
) -> None:
    async with open_batches(redis, tmp_path) as (worker, (batch,)):
        batch.record([make_outcome(0)])
        since_s = batch.pending.since_s
        worker.ledger.failures = 1
        with pytest.raises(StoreError):
            await count_off(worker.process, batch)

        assert [outcome.index for outcome in batch.pending.outcomes] == [0]
        assert batch.pending.since_s == since_s
        assert worker.process.gate.is_closed


async def test_a_batch_that_is_somebody_elses_counts_its_requests_alone(
    redis: Redis, tmp_path: Path
) -> None:
    async with open_batches(redis, tmp_path) as (worker, (batch,)):
        await end_lease(redis)
        await claim(make_ledger(redis, "another"))
        batch.record([make_outcome(0)])
        batch.pending.sent = 1

        with pytest.raises(LeaseLostError):
            await count_off(worker.process, batch)

        assert worker.process.meter.requests["sent"] == 1
    status = await Store(redis).status(JOB)
    assert status is not None
    assert (status.rows_done, status.requests.sent) == (0, 1)


@pytest.mark.parametrize("redis", ["real"], indirect=True)
async def test_a_full_redis_does_not_keep_a_batch_that_makes_room(
    redis: Redis, tmp_path: Path
) -> None:
    """It takes no more outcomes; those in the run free what their batch holds of it.

    That is no sign that it takes outcomes again.
    """
    async with open_batches(redis, tmp_path, batches=2, task=Task.EMBEDDINGS) as (
        worker,
        (batch, other),
    ):
        batch.rows = 1
        batch.record([make_outcome(0, output=VECTOR)])
        batch.pending.sent = 1
        other.record([make_outcome(3, output=VECTOR)])
        await redis.config_set("maxmemory", 1)
        try:
            with pytest.raises(StoreError, match="full"):
                await flush(worker.process, other)

            await secure(worker.process, batch)
            counted = await count_off(worker.process, batch)
            assert worker.process.gate.is_closed
        finally:
            await redis.config_set("maxmemory", 0)

    status = await Store(redis).status(JOB)
    assert status is not None
    assert (counted, status.rows_done) == (CountOff.COUNTED, 1)
