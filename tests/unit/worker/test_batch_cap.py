"""What a job's batches hold of its cap: nothing any more when they have ended, however they do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
from redis.asyncio import Redis

from flavor.types import Request, Response
from tests.unit.worker.fakes import ScriptedClient
from tests.unit.worker.making import JOB, submit_batches, until
from tests.unit.worker.processes import open_worker
from worker.allowance import Spend
from worker.batch import BatchEnd, run_batch
from worker.jobs import Cap
from worker.stop import StopReason


class _Held(ScriptedClient):
    """Answers its first request when it is let go, and all others at once."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def send(self, request: Request) -> Response:
        response = await super().send(request)
        await self.go.wait()
        return response


async def test_a_cap_set_while_a_batch_is_open_is_not_held_by_what_is_written(
    redis: Redis, tmp_path: Path
) -> None:
    store, client = await submit_batches(redis, 2), _Held()
    async with open_worker(redis, tmp_path, client=client, concurrency=1) as worker:
        process = worker.process
        first = asyncio.ensure_future(run_batch(process, JOB, "0"))
        await until(lambda: bool(client.sent))
        await store.set_cap(JOB, Cap(total_tokens=1000))
        second = asyncio.ensure_future(run_batch(process, JOB, "1"))
        await until(lambda: process.slots.waiting == 5)
        client.go.set()
        with anyio.fail_after(10):
            await asyncio.gather(first, second)

        assert process.allowances.of(JOB)._held == Spend()


async def test_a_job_resumed_while_its_batch_winds_down_goes_on_with_it_at_once(
    redis: Redis, tmp_path: Path
) -> None:
    """The resume finds no such batch to publish: it is claimed still, by who gives it back."""
    store, client = await submit_batches(redis), _Held()
    async with open_worker(redis, tmp_path, client=client, concurrency=1) as worker:
        running = asyncio.ensure_future(run_batch(worker.process, JOB, "0"))
        await until(lambda: bool(client.sent))
        await store.pause(JOB, "the cap is reached")
        worker.process.open[JOB, "0"].sending.set(StopReason.PAUSED)
        await store.unpause(JOB)
        client.go.set()
        with anyio.fail_after(10):
            end = (await running).end

        assert (end, worker.published()) == (BatchEnd.RELEASED, [(JOB, "0")])


async def test_a_batch_that_was_lost_with_outcomes_that_could_not_be_written_holds_no_cap(
    redis: Redis, tmp_path: Path
) -> None:
    store, client = await submit_batches(redis), _Held()
    await store.set_cap(JOB, Cap(total_tokens=1000))
    async with open_worker(redis, tmp_path, client=client) as worker:
        process = worker.process
        running = asyncio.ensure_future(run_batch(process, JOB, "0"))
        await until(lambda: len(client.sent) == 3)
        worker.ledger.failures = 99
        process.open[JOB, "0"].lose()
        client.go.set()
        with anyio.fail_after(10):
            end = (await running).end

        assert end is BatchEnd.LOST
        assert process.allowances.of(JOB)._held == Spend()
