"""A batch whose rows were sent: into Redis, into the part, off the ledger; or lost on its way.

Texts are in Redis before the part is written, vectors need not be: all else holds for both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from flavor.errors import InputError
from flavor.types import Request, Response, Task
from tests.unit.worker.fakes import ScriptedClient, answer_of
from tests.unit.worker.making import JOB, claim, end_lease, make_ledger, submit_batches, until
from tests.unit.worker.processes import Worker, open_worker, saved
from worker.allowance import Spend
from worker.batch import BatchEnd, run_batch
from worker.checkpoint import flush
from worker.jobs import Cap, Lease, Verdict
from worker.parts import read_outcomes
from worker.pending import Pending
from worker.publish import publish_part
from worker.stop import StopReason
from worker.store import Store

TASKS = [Task.CHAT, Task.EMBEDDINGS]


class _AfterEach(ScriptedClient):
    """Does something after each answer, before the answer is known to anybody."""

    def __init__(self, task: Task) -> None:
        super().__init__(answer=answer_of(task))
        self.worker: Worker | None = None

    async def send(self, request: Request) -> Response:
        response = await super().send(request)
        assert self.worker is not None
        await self.meanwhile(self.worker)
        return response

    async def meanwhile(self, worker: Worker) -> None:
        """To be overridden."""


@pytest.mark.parametrize(("task", "written"), [(Task.CHAT, 1), (Task.EMBEDDINGS, 0)])
async def test_texts_are_in_redis_before_the_part_and_vectors_need_not_be(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Task, written: int
) -> None:
    await submit_batches(redis, 2, task=task)
    client = ScriptedClient(answer=answer_of(task))
    async with open_worker(redis, tmp_path, client=client) as worker:
        before: list[int] = []

        def publish(*args: Any, **rest: Any) -> None:
            before.append(worker.ledger.checkpoints)
            publish_part(*args, **rest)

        monkeypatch.setattr("worker.batch.publish_part", publish)
        await run_batch(worker.process, JOB, "0")

    status = await Store(redis).status(JOB)
    assert status is not None
    assert (before, worker.ledger.checkpoints) == ([written], written)
    assert (status.rows_done, status.requests.sent, status.tokens.total) == (3, 3, 45)
    outputs = {outcome.output for outcome in read_outcomes(worker.part(0))}
    assert outputs == {"fine" if task is Task.CHAT else b"fine    "}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), InputError("no such run"), KeyError("bug")]
)
async def test_outcomes_whose_part_cannot_be_written_are_kept(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Task, error: Exception
) -> None:
    """The next delivery must not pay for them again, to fail again."""
    await submit_batches(redis, task=task)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("worker.batch.publish_part", fail)
    client = ScriptedClient(answer=answer_of(task))
    async with open_worker(redis, tmp_path, client=client) as worker:
        with suppress(type(error)):
            await run_batch(worker.process, JOB, "0")

    assert set(await saved(redis)) == {0, 1, 2}


@pytest.mark.parametrize("task", TASKS)
async def test_a_worker_that_was_frozen_does_not_write_over_the_part_of_the_next(
    redis: Redis, tmp_path: Path, task: Task
) -> None:
    """Its last answer came after its lease had ended, and no beat has told it so yet."""

    class Freezing(_AfterEach):
        async def meanwhile(self, worker: Worker) -> None:
            if len(self.sent) < 3:
                return
            await flush(worker.process, worker.process.open[JOB, "0"])
            await end_lease(redis)
            next_one = ScriptedClient(answer=answer_of(task, "B's"))
            async with open_worker(redis, tmp_path, client=next_one, concurrency=1) as other:
                await run_batch(other.process, JOB, "0")

    await submit_batches(redis, task=task)
    worker, end = await _run(redis, tmp_path, Freezing(task))

    texts = [_text(outcome.output) for outcome in read_outcomes(worker.part(0))]
    assert end is BatchEnd.LOST
    assert texts == ["fine", "fine", "B's"]


@pytest.mark.parametrize("task", TASKS)
async def test_the_requests_of_a_lost_batch_are_counted(
    redis: Redis, tmp_path: Path, task: Task
) -> None:
    """They were sent: whoever reads the bill will look for them."""

    class Losing(_AfterEach):
        async def meanwhile(self, worker: Worker) -> None:
            batch = worker.process.open[JOB, "0"]
            batch.pending.in_doubt += 1
            batch.lose()

    store = await submit_batches(redis, task=task)
    worker, end = await _run(redis, tmp_path, Losing(task))

    status = await store.status(JOB)
    assert status is not None
    assert end is BatchEnd.LOST
    assert (status.requests.sent, status.rows_in_doubt) == (1, 1)
    assert worker.process.meter.requests["sent"] == 1


@pytest.mark.parametrize("task", TASKS)
async def test_a_batch_whose_redis_was_wiped_while_it_stops_is_rescued(
    redis: Redis, tmp_path: Path, task: Task
) -> None:
    class Wiping(_AfterEach):
        async def meanwhile(self, worker: Worker) -> None:
            if len(self.sent) == 2:
                await redis.flushall()
                worker.process.stopping.set(StopReason.SHUTDOWN)
                worker.process.open[JOB, "0"].sending.set(StopReason.SHUTDOWN)

    await submit_batches(redis, task=task)
    _, end = await _run(redis, tmp_path, Wiping(task))

    (rescued,) = (tmp_path / "rescued").glob("*.parquet")
    assert end is BatchEnd.LOST
    assert len(read_outcomes(rescued)) == 2


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("rows", [1, 3])
async def test_a_batch_that_must_be_let_go_at_once_leaves_its_outcomes(
    redis: Redis, tmp_path: Path, task: Task, rows: int
) -> None:
    """Whether it was its last row that was answered, or one of several."""

    class Ending(_AfterEach):
        async def meanwhile(self, worker: Worker) -> None:
            batch = worker.process.open[JOB, "0"]
            batch.sending.set(StopReason.SHUTDOWN)
            batch.holding.set(StopReason.SHUTDOWN)

    await submit_batches(redis, rows=rows, task=task)
    _, end = await _run(redis, tmp_path, Ending(task))

    assert end is BatchEnd.RELEASED
    assert set(await saved(redis)) == {0}


@pytest.mark.parametrize("task", TASKS)
async def test_a_batch_whose_redis_was_wiped_after_all_was_written_is_rescued(
    redis: Redis, tmp_path: Path, task: Task
) -> None:
    """Its other rows wait for their turn: nothing is pending when it is told to stop."""
    await submit_batches(redis, task=task)
    client = ScriptedClient(answer=answer_of(task))
    async with open_worker(redis, tmp_path, client=client, rpm=1) as worker:
        running = asyncio.ensure_future(run_batch(worker.process, JOB, "0"))
        await until(lambda: any(batch.outcomes for batch in worker.process.open.values()))
        await flush(worker.process, worker.process.open[JOB, "0"])
        await redis.flushall()
        worker.process.stopping.set(StopReason.SHUTDOWN)
        worker.process.open[JOB, "0"].sending.set(StopReason.SHUTDOWN)
        end = (await running).end
        published = worker.published()

    (rescued,) = (tmp_path / "rescued").glob("*.parquet")
    assert (end, published) == (BatchEnd.LOST, [])
    assert len(read_outcomes(rescued)) == 1


@pytest.mark.parametrize("task", TASKS)
async def test_a_batch_lost_while_it_is_cancelled_writes_no_part(
    redis: Redis, tmp_path: Path, task: Task
) -> None:
    """Over the next owner's, it would say of each row that it was cancelled."""

    class Cancelling(_AfterEach):
        async def meanwhile(self, worker: Worker) -> None:
            batch = worker.process.open[JOB, "0"]
            batch.sending.set(StopReason.CANCELLED)
            write = worker.ledger.checkpoint

            async def overtaken(pending: Sequence[tuple[Lease, Pending]]) -> list[bool]:
                if any(o.verdict is Verdict.CANCELLED for _, p in pending for o in p.outcomes):
                    await end_lease(redis)
                    await claim(make_ledger(redis, "another"))
                return await write(pending)

            worker.ledger.checkpoint = overtaken  # type: ignore[method-assign]

    await submit_batches(redis, task=task)
    worker, end = await _run(redis, tmp_path, Cancelling(task))

    assert end is BatchEnd.LOST
    assert not worker.part(0).exists()


@pytest.mark.parametrize("task", TASKS)
async def test_a_batch_that_is_done_holds_nothing_of_the_cap(
    redis: Redis, tmp_path: Path, task: Task
) -> None:
    store = await submit_batches(redis, task=task)
    await store.set_cap(JOB, Cap(total_tokens=1000))
    client = ScriptedClient(answer=answer_of(task))
    async with open_worker(redis, tmp_path, client=client) as worker:
        end = (await run_batch(worker.process, JOB, "0")).end
        held = worker.process.allowances.of(JOB)._held

    status = await store.status(JOB)
    assert status is not None
    assert (end, held, status.tokens.total) == (BatchEnd.DONE, Spend(), 45)


async def _run(redis: Redis, folder: Path, client: _AfterEach) -> tuple[Worker, BatchEnd]:
    """The batch by a worker that sends one row at a time: that worker, and what became of it."""
    async with open_worker(redis, folder, client=client, concurrency=1) as worker:
        client.worker = worker
        return worker, (await run_batch(worker.process, JOB, "0")).end


def _text(output: str | bytes | None) -> str:
    return output.decode().strip() if isinstance(output, bytes) else str(output)
