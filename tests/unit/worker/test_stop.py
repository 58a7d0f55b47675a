"""A batch's stop signal: whoever waits ends at once, whoever sends is left alone."""

from __future__ import annotations

import asyncio

import pytest

from worker.stop import Stop, StoppedError, StopReason, resolve


async def test_nothing_stops_before_it_is_told_to() -> None:
    stop = Stop()

    stop.check()
    await stop.sleep(0)

    assert stop.reason is None


async def test_sleepers_end_at_once() -> None:
    stop = Stop()
    sleepers = [asyncio.ensure_future(stop.sleep(3600)) for _ in range(3)]
    await asyncio.sleep(0)

    stop.set(StopReason.PAUSED)
    ends = await asyncio.gather(*sleepers, return_exceptions=True)

    assert [type(end) for end in ends] == [StoppedError] * 3
    assert [str(end) for end in ends] == ["paused"] * 3


async def test_whoever_waits_from_now_on_is_refused() -> None:
    stop = Stop()
    stop.set(StopReason.SHUTDOWN)

    with pytest.raises(StoppedError, match="shutdown"):
        stop.check()
    with pytest.raises(StoppedError, match="shutdown"):
        await stop.sleep(0)


async def test_the_first_reason_stays() -> None:
    stop = Stop()

    stop.set(StopReason.LEASE_LOST)
    stop.set(StopReason.CANCELLED)

    assert stop.reason is StopReason.LEASE_LOST


async def test_a_wait_that_has_ended_is_not_stopped_afterwards() -> None:
    stop = Stop()
    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiter = asyncio.ensure_future(stop.wait(turn))
    await asyncio.sleep(0)

    resolve(turn)
    stop.set(StopReason.SHUTDOWN)
    await waiter
    resolve(turn)

    assert turn.result() is None


async def test_two_stops_are_apart() -> None:
    one, other = Stop(), Stop()

    one.set(StopReason.PAUSED)

    other.check()
