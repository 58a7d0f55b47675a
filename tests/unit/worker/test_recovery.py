"""Redis was wiped, or restarted without its last second: the run keeps what was paid for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from flavor.errors import TrackingError
from flavor.model import RowReply
from flavor.types import Request, Response
from tests.unit.worker.making import (
    JOB,
    claim,
    make_dead,
    make_ledger,
    make_outcome,
    submit_batches,
    until,
)
from tests.unit.worker.processes import Worker, open_worker
from worker import keys
from worker.batch import BatchEnd, run_batch
from worker.checkpoint import flush
from worker.parts import part_name, read_outcomes, write_part
from worker.pending import Pending
from worker.recovery import PERIOD_S, rescue_regularly
from worker.stop import StopReason
from worker.upkeep import _beat


def _rescued(worker: Worker) -> list[str]:
    paths = (worker.runs.folder / "rescued").glob("*.parquet")
    return sorted(outcome.row_id for path in paths for outcome in read_outcomes(path))


def _wipes(worker: Worker, redis: Redis, *, nth: int) -> None:
    """Let Redis be wiped while the ``nth`` request is in flight, and let the worker notice."""
    send = worker.client.send

    async def wipe_and_send(request: Request) -> Response:
        response = await send(request)
        if len(worker.client.sent) == nth:
            await redis.flushall()
            await _beat(worker.process)
        return response

    worker.client.send = wipe_and_send  # type: ignore[method-assign]


async def test_what_was_paid_for_is_in_the_run_when_redis_is_wiped(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis)
    async with open_worker(redis, tmp_path, concurrency=1) as worker:
        _wipes(worker, redis, nth=2)

        end = (await run_batch(worker.process, JOB, "0")).end

        assert end is BatchEnd.LOST
        assert _rescued(worker) == sorted(worker.sent)
        assert not worker.part(0).exists()


async def test_a_rescue_waits_for_mlflow(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)
    async with open_worker(redis, tmp_path, concurrency=1) as worker:
        _wipes(worker, redis, nth=1)
        worker.runs.failures = 1

        await run_batch(worker.process, JOB, "0")

        assert _rescued(worker) == sorted(worker.sent)


async def test_a_batch_lost_to_another_worker_is_not_rescued(redis: Redis, tmp_path: Path) -> None:
    """Its outcomes are in Redis, but for those in flight, which the other sends again."""
    await submit_batches(redis)
    async with open_worker(redis, tmp_path, concurrency=1) as worker:
        answer = worker.client.answer

        def lose(request: Request) -> Exception | list[RowReply]:
            worker.process.open[JOB, "0"].lose()
            return answer(request)

        worker.client.answer = lose

        end = (await run_batch(worker.process, JOB, "0")).end

        assert end is BatchEnd.LOST
        assert _rescued(worker) == []


async def _restart(redis: Redis) -> None:
    await redis.hset(keys.job(JOB), "server", "the one before")


async def test_a_part_written_before_redis_lost_its_last_second_is_not_paid_for_again(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis, 2)
    async with open_worker(redis, tmp_path) as worker:
        await run_batch(worker.process, JOB, "0")
        first = list(worker.sent)
        await redis.flushall()
        store = await submit_batches(redis, 2)
        await _restart(redis)

        end = (await run_batch(worker.process, JOB, "0")).end
        await run_batch(worker.process, JOB, "1")

        status = await store.status(JOB)
        assert end is BatchEnd.DONE
        assert first == ["r0", "r1", "r2"]
        assert sorted(worker.sent) == ["r0", "r1", "r2", "r3", "r4", "r5"]
        assert [o.row_id for o in read_outcomes(worker.part(0))] == first
        assert status is not None
        assert status.rows_done == 6


async def test_only_successes_are_recalled(redis: Redis, tmp_path: Path) -> None:
    """A part may be from before a retry, whose rows are to be sent again."""
    spec_store = await submit_batches(redis)
    spec = await spec_store.spec(JOB)
    assert spec is not None
    async with open_worker(redis, tmp_path) as worker:
        (tmp_path / "outputs").mkdir()
        write_part(tmp_path / "outputs" / part_name(0), [make_outcome(0), make_dead(1)], spec.task)
        await _restart(redis)

        await run_batch(worker.process, JOB, "0")

        assert sorted(worker.sent) == ["r1", "r2"]


async def test_redis_own_outcomes_come_before_those_of_a_part(redis: Redis, tmp_path: Path) -> None:
    store = await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    await ledger.checkpoint([(lease, Pending([make_outcome(0, output="newer")]))])
    await ledger.release(lease)
    spec = await store.spec(JOB)
    assert spec is not None
    async with open_worker(redis, tmp_path) as worker:
        (tmp_path / "outputs").mkdir()
        write_part(tmp_path / "outputs" / part_name(0), [make_outcome(0)], spec.task)
        await _restart(redis)

        await run_batch(worker.process, JOB, "0")
        await flush(worker.process)

        assert read_outcomes(worker.part(0))[0].output == "newer"


async def test_a_process_that_ends_tries_its_rescue_once(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)
    async with open_worker(redis, tmp_path, concurrency=1) as worker:
        _wipes(worker, redis, nth=1)
        worker.runs.failures = 99
        running = asyncio.ensure_future(run_batch(worker.process, JOB, "0"))
        await until(lambda: worker.runs.failures < 99)
        worker.process.stopping.set(StopReason.SHUTDOWN)

        with pytest.raises(TrackingError):
            await running


async def test_a_worker_that_shall_end_while_redis_is_away_keeps_its_answers_in_the_run(
    redis: Redis, tmp_path: Path
) -> None:
    """It goes on trying Redis; but whoever stops it may kill it before Redis is back."""
    await submit_batches(redis)
    async with open_worker(redis, tmp_path) as worker:
        worker.ledger.failures = 10**9
        running = asyncio.ensure_future(run_batch(worker.process, JOB, "0"))
        rescuing = asyncio.ensure_future(rescue_regularly(worker.process))
        await until(lambda: len(worker.sent) == 3 and worker.process.gate.is_closed)
        await asyncio.sleep(2 * PERIOD_S)
        before = _rescued(worker)
        worker.process.stopping.set(StopReason.SHUTDOWN)
        await until(lambda: _rescued(worker) == ["r0", "r1", "r2"])
        worker.ledger.failures = 0
        end = (await running).end
        rescuing.cancel()

    assert before == []
    assert end is BatchEnd.DONE
