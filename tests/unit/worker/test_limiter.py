"""The shared limits: what the scripts compute, to the microsecond, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

import anyio
import pytest
from redis.asyncio import Redis

from flavor.errors import RowError
from tests.unit.worker.fakes import AwayRedis, CountingRedis
from tests.unit.worker.making import until
from worker.jobs import Limits
from worker.limiter import Limiter, Limiters
from worker.redis_client import run_script, text
from worker.stop import Stop, StoppedError, StopReason

KEY = "limit:{endpoint:gpt-4o-mini}"
BURST_US = 100_000
HORIZON_US = 1_000_000


async def _reserve(
    redis: Redis,
    *tokens: int,
    rpm: int = 0,
    tpm: int = 0,
    burst_us: int = BURST_US,
    horizon_us: int = HORIZON_US,
) -> tuple[int, str, list[int]]:
    ask_again_us, cause, *turns_us = await run_script(
        redis, "reserve", keys=[KEY], args=[rpm, tpm, burst_us, horizon_us, *tokens]
    )
    return ask_again_us, cause.decode(), turns_us


async def _stored(redis: Redis) -> dict[str, int]:
    return {text(name): int(value) for name, value in (await redis.hgetall(KEY)).items()}


@asynccontextmanager
async def _serving(limiter: Limiter) -> AsyncIterator[Limiter]:
    task = asyncio.ensure_future(limiter.serve())
    try:
        yield limiter
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_requests_go_at_the_pace_of_the_limit(redis: Redis) -> None:
    """600 a minute is one in 100,000 us; the burst lets one more go at once."""
    ask_again_us, cause, turns_us = await _reserve(redis, *[1] * 6, rpm=600)

    assert turns_us == [0, 0, 100_000, 200_000, 300_000, 400_000]
    assert (ask_again_us, cause) == (0, "requests")


async def test_tokens_go_at_the_pace_of_the_limit(redis: Redis) -> None:
    """60,000 a minute is one in 1,000 us."""
    _, cause, turns_us = await _reserve(redis, 100, 150, 250, 1, tpm=60_000)

    assert turns_us == [0, 0, 150_000, 400_000]
    assert cause == "tokens"


async def test_the_slower_of_both_limits_decides(redis: Redis) -> None:
    """A request in 200,000 us against a token in 1,000 us."""
    _, cause, turns_us = await _reserve(redis, 100, 400, 1, 1, rpm=300, tpm=60_000)

    assert turns_us == [0, 100_000, 400_000, 500_000]
    assert cause == "requests"


async def test_a_request_beyond_the_horizon_debits_neither_bucket(redis: Redis) -> None:
    """One a second with no burst: the second request is a second away, and nobody pays for it."""
    ask_again_us, cause, turns_us = await _reserve(
        redis, 500, 500, rpm=60, tpm=60_000, burst_us=0, horizon_us=400_000
    )

    stored = await _stored(redis)
    assert turns_us == [0]
    assert (ask_again_us, cause) == (600_000, "requests")
    assert stored["requests_us"] - stored["tokens_us"] == 500_000


async def test_without_limits_every_turn_is_now(redis: Redis) -> None:
    assert await _reserve(redis, *[10**9] * 3) == (0, "none", [0, 0, 0])


async def test_workers_share_one_pace(redis: Redis) -> None:
    _, _, first = await _reserve(redis, *[1] * 4, rpm=600)

    _, _, second = await _reserve(redis, *[1] * 4, rpm=600)

    # Less by the time between the calls, and by that to the same microsecond in each turn.
    assert second[0] <= first[-1] + 100_000
    assert [turn - second[0] for turn in second] == [0, 100_000, 200_000, 300_000]


async def test_settling_gives_back_exactly_what_was_not_used(redis: Redis) -> None:
    await _reserve(redis, 500, tpm=60_000)
    before = await _stored(redis)

    await run_script(redis, "settle", keys=[KEY], args=[60_000, 120 - 500])

    after = await _stored(redis)
    assert before["tokens_us"] - after["tokens_us"] == 380_000
    assert after["requests_us"] == before["requests_us"]


async def test_settling_takes_what_was_used_beyond_the_estimate(redis: Redis) -> None:
    await _reserve(redis, 10, tpm=60_000)
    before = await _stored(redis)

    await run_script(redis, "settle", keys=[KEY], args=[60_000, 25])

    assert (await _stored(redis))["tokens_us"] - before["tokens_us"] == 25_000


async def test_settling_what_redis_forgot_leaves_no_key(redis: Redis) -> None:
    await run_script(redis, "settle", keys=[KEY], args=[60_000, -5])

    assert await _stored(redis) == {}


async def test_a_pause_holds_every_request_back(redis: Redis) -> None:
    await run_script(redis, "pause", keys=[KEY], args=[30_000_000])

    ask_again_us, cause, turns_us = await _reserve(redis, 1, rpm=600)

    assert turns_us == []
    assert cause == "pause"
    assert 28_000_000 < ask_again_us <= 29_000_000


async def test_a_shorter_pause_does_not_end_a_longer_one(redis: Redis) -> None:
    await run_script(redis, "pause", keys=[KEY], args=[30_000_000])
    long = (await _stored(redis))["pause_us"]

    await run_script(redis, "pause", keys=[KEY], args=[1])

    assert (await _stored(redis))["pause_us"] == long


async def test_a_limit_that_nobody_uses_expires_but_not_before_its_pause(redis: Redis) -> None:
    await _reserve(redis, 1, rpm=600)
    unused_s = await redis.ttl(KEY)
    await run_script(redis, "pause", keys=[KEY], args=[7200 * 1_000_000])

    assert 0 < unused_s <= 3600
    assert await redis.ttl(KEY) > 7200


async def test_rows_that_wait_together_share_one_call(redis: Redis) -> None:
    counting = CountingRedis(redis)
    limiter = Limiter(cast("Redis", counting), KEY, Limits(requests_per_min=10**6))

    async with _serving(limiter):
        await asyncio.gather(*(limiter.reserve(1, Stop()) for _ in range(200)))

    assert counting.calls == ["reserve"]


async def test_without_limits_nothing_is_asked_of_redis() -> None:
    limiter = Limiter(cast("Redis", AwayRedis()), KEY, Limits())

    await limiter.reserve(10**9, Stop())
    await limiter.pause(0.001)
    await limiter.reserve(10**9, Stop())

    assert not limiter.is_limited


async def test_differences_are_settled_in_one_call_before_the_next_reservation(
    redis: Redis,
) -> None:
    counting = CountingRedis(redis)
    limiter = Limiter(cast("Redis", counting), KEY, Limits(tokens_per_min=10**7))
    async with _serving(limiter):
        await asyncio.gather(limiter.reserve(100, Stop()), limiter.reserve(100, Stop()))
        limiter.settle(100, 40)
        limiter.settle(100, 130)

        await limiter.reserve(100, Stop())

    assert counting.calls == ["reserve", "settle", "reserve"]
    assert counting.args[1] == (10**7, -30)


async def test_a_row_above_a_whole_minutes_limit_is_refused_at_once(redis: Redis) -> None:
    limiter = Limiter(redis, KEY, Limits(tokens_per_min=1000))

    with pytest.raises(RowError, match="1001 tokens; a whole minute allows 1000") as caught:
        await limiter.reserve(1001, Stop())

    assert caught.value.info.type == "TooLarge"


async def test_the_waiters_of_a_stopped_batch_end_and_the_others_go_on(redis: Redis) -> None:
    limiter = Limiter(redis, KEY, Limits(requests_per_min=600))
    stopped, going = Stop(), Stop()
    async with _serving(limiter):
        waiters = [
            asyncio.ensure_future(limiter.reserve(1, stop))
            for stop in (going, going, stopped, stopped, going)
        ]
        await waiters[0]

        stopped.set(StopReason.PAUSED)
        ends = await asyncio.gather(*waiters[2:4], return_exceptions=True)
        waiting_for = limiter.waiting_for
        await waiters[1]
        for waiter in waiters[4:]:
            waiter.cancel()

    assert [type(end) for end in ends] == [StoppedError, StoppedError]
    assert waiting_for == ""  # every turn is given: they sleep until theirs


async def test_a_stopped_batch_gets_no_turn(redis: Redis) -> None:
    stop = Stop()
    stop.set(StopReason.SHUTDOWN)

    with pytest.raises(StoppedError):
        await Limiter(redis, KEY, Limits(requests_per_min=5)).reserve(1, stop)


async def test_one_pause_holds_back_the_rows_of_every_process(redis: Redis) -> None:
    limits = Limits(requests_per_min=10**6)
    here, there = Limiter(redis, KEY, limits), Limiter(redis, KEY, limits)
    loop = asyncio.get_running_loop()
    started_s = loop.time()

    await here.pause(0.08)
    says = here.waiting_for
    async with _serving(here), _serving(there):
        await asyncio.gather(here.reserve(1, Stop()), there.reserve(1, Stop()))

    assert says == "the endpoint's pause"
    assert loop.time() - started_s >= 0.079


async def test_says_which_limit_the_rows_wait_for(redis: Redis) -> None:
    limiter = Limiter(redis, KEY, Limits(requests_per_min=1))
    stop = Stop()
    async with _serving(limiter):
        await limiter.reserve(1, stop)
        waiter = asyncio.ensure_future(limiter.reserve(1, stop))
        await until(lambda: bool(limiter.waiting_for))

        says = limiter.waiting_for
        stop.set(StopReason.SHUTDOWN)

    assert says == "requests per minute"
    assert isinstance((await asyncio.gather(waiter, return_exceptions=True))[0], StoppedError)


async def test_rows_are_held_while_redis_is_away() -> None:
    limiter = Limiter(cast("Redis", AwayRedis()), KEY, Limits(requests_per_min=600))
    stop = Stop()
    async with _serving(limiter):
        waiter = asyncio.ensure_future(limiter.reserve(1, stop))
        await until(lambda: bool(limiter.waiting_for))

        says, is_held = limiter.waiting_for, not waiter.done()
        stop.set(StopReason.SHUTDOWN)

    assert (says, is_held) == ("Redis", True)
    assert isinstance((await asyncio.gather(waiter, return_exceptions=True))[0], StoppedError)


async def test_a_429_while_redis_is_away_still_holds_this_process_back() -> None:
    """It used to raise, and the batch lost outcomes that it had paid for."""
    limiter = Limiter(cast("Redis", AwayRedis()), KEY, Limits(requests_per_min=600))

    await limiter.pause(30)

    assert limiter.waiting_for == "the endpoint's pause"


async def test_jobs_on_the_same_limit_share_a_limiter(redis: Redis) -> None:
    async with anyio.create_task_group() as tasks:
        limiters = Limiters(redis, tasks)
        limits = Limits(requests_per_min=5)

        one = limiters.of("endpoint", "gpt-x", limits)

        assert limiters.of("endpoint", "gpt-x", Limits(requests_per_min=5)) is one
        assert limiters.of("endpoint", "gpt-y", limits) is not one
        assert limiters.of("endpoint", "gpt-x", Limits()) is not one
        tasks.cancel_scope.cancel()
