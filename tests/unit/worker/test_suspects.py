"""A batch that kills its workers must not take the batches beside it along."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from tests.unit.worker.making import JOB, claim, make_ledger, submit_batches
from worker.stop import Stop, StopReason
from worker.suspects import Suspects, is_suspect


@pytest.mark.parametrize(
    ("deliveries", "max_deliveries", "expected"),
    [
        (1, 5, False),
        (2, 5, False),  # any worker may die once
        (3, 5, True),
        (5, 5, True),
        (6, 5, False),  # set aside: there is nothing to send
        (1, 2, False),
        (2, 2, True),  # its last chance
        (1, 1, False),
    ],
)
def test_who_is_suspect(deliveries: int, max_deliveries: int, *, expected: bool) -> None:
    assert is_suspect(deliveries, max_deliveries=max_deliveries) is expected


async def test_suspects_go_one_at_a_time() -> None:
    suspects, now, most = Suspects(), 0, 0

    async def work() -> None:
        nonlocal now, most
        async with suspects.turn(Stop()) as has_turn:
            assert has_turn
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(work() for _ in range(5)))

    assert (now, most) == (0, 1)


async def test_a_suspect_that_is_stopped_waits_no_longer_and_lets_the_next_one_go() -> None:
    suspects, stop = Suspects(), Stop()
    async with suspects.turn(Stop()):
        waiting = asyncio.ensure_future(_has_turn(suspects, stop))
        await asyncio.sleep(0)
        stop.set(StopReason.CANCELLED)
        assert not await waiting

    assert await _has_turn(suspects, Stop())


async def _has_turn(suspects: Suspects, stop: Stop) -> bool:
    async with suspects.turn(stop) as has_turn:
        return has_turn


async def test_a_delivery_is_weighed_by_its_owner_alone(redis: Redis) -> None:
    await submit_batches(redis)
    ledger = make_ledger(redis)
    former = await claim(ledger)
    await ledger.release(former)
    lease = await claim(ledger)

    await ledger.weigh(former, -1)
    assert await redis.hget(f"job:{{{JOB}}}:batch:0", "deliveries") == b"1"
    await ledger.weigh(lease, -1)
    assert await redis.hget(f"job:{{{JOB}}}:batch:0", "deliveries") == b"0"
