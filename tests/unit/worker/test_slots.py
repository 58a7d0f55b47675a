"""The slots of a process: filled in order, and a slow piece of work holds one of them only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio

from worker.slots import Slots


@asynccontextmanager
async def _serving(size: int) -> AsyncIterator[Slots]:
    slots = Slots(size)
    async with anyio.create_task_group() as tasks:
        for _ in range(size):
            tasks.start_soon(slots.serve)
        yield slots
        tasks.cancel_scope.cancel()


async def _settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_slow_piece_of_work_holds_one_slot_only() -> None:
    done: list[int] = []
    release = asyncio.Event()

    async def note(number: int) -> None:
        done.append(number)

    async with _serving(2) as slots:
        slots.put(lambda: _wait(release), job_id="a")
        for number in range(5):
            slots.put(partial(note, number), job_id="a")
        await _settle()

        assert done == [0, 1, 2, 3, 4]
        assert (slots.busy, slots.waiting) == (1, 0)


async def test_no_more_than_its_size_at_a_time() -> None:
    release = asyncio.Event()
    async with _serving(3) as slots:
        for _ in range(10):
            slots.put(lambda: _wait(release), job_id="a")
        await _settle()

        busy, waiting = slots.busy, slots.waiting
        release.set()
        await _settle()

        assert (busy, waiting) == (3, 7)
        assert (slots.busy, slots.waiting) == (0, 0)


async def test_first_come_first_served() -> None:
    order: list[int] = []

    async def note(number: int) -> None:
        await asyncio.sleep(0)
        order.append(number)

    async with _serving(1) as slots:
        for number in range(6):
            slots.put(partial(note, number), job_id="a")
        await _settle()

    assert order == [0, 1, 2, 3, 4, 5]


async def test_jobs_take_turns() -> None:
    """A large job that came first does not keep a small one waiting for its whole queue."""
    order: list[str] = []

    async def note(job_id: str) -> None:
        order.append(job_id)

    async with _serving(1) as slots:
        for job_id in ("large",) * 5 + ("small",) * 2:
            slots.put(partial(note, job_id), job_id=job_id)
        await _settle()

    assert order == ["large", "small", "large", "small", "large", "large", "large"]


async def test_a_job_that_waits_for_its_limits_leaves_half_of_the_slots_to_another() -> None:
    """By turns alone each row of the fast job would let another slow one in, until all are slow."""
    done: list[int] = []
    release = asyncio.Event()

    async def note(number: int) -> None:
        done.append(number)

    async with _serving(4) as slots:
        for number in range(50):
            slots.put(lambda: _wait(release), job_id="slow")
            slots.put(partial(note, number), job_id="fast")
        for _ in range(10):
            await _settle()

        assert len(done) == 50
        assert slots.busy == 4


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
