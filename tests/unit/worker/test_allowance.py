"""A job's cap: what all workers together may spend, and what happens when it is spent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis

from flavor.errors import CapReachedError, StoreError
from flavor.types import Usage
from tests.unit.worker.making import make_outcome, until
from worker import keys
from worker.allowance import CAP_REACHED, Allowance, Spend
from worker.jobs import PICO, Outcome
from worker.redis_client import run_script, text
from worker.stop import Stop, StoppedError, StopReason

JOB = "job-1"
KEYS = [keys.job(JOB), keys.counts(JOB), keys.held(JOB)]


@asynccontextmanager
async def _allowances(redis: Redis, *names: str) -> AsyncIterator[list[Allowance]]:
    async with anyio.create_task_group() as tasks:
        yield [Allowance(redis, JOB, tasks, name=name) for name in names]
        tasks.cancel_scope.cancel()


async def _allow(
    redis: Redis,
    *asked: tuple[int, int],
    process: str = "a",
    held: tuple[int, int] = (0, 0),
    spare: int = 0,
    hold_us: int = 10**7,
) -> tuple[int, str, int]:
    numbers = [number for request in asked for number in request]
    args = [process, hold_us, *held, spare, spare, *numbers]
    granted, cause, tokens, _ = await run_script(redis, "allow", keys=KEYS, args=args)
    return int(granted), text(cause), int(tokens)


def _used(tokens: int, cost_usd: float | None = None) -> Outcome:
    usage = Usage(prompt_tokens=tokens, completion_tokens=0, total_tokens=tokens)
    return replace(make_outcome(0), usage=usage, cost_usd=cost_usd)


async def test_requests_are_granted_in_their_order_until_the_cap_has_no_room(redis: Redis) -> None:
    await redis.hset(KEYS[0], "cap_tokens", "1000")
    await redis.hset(KEYS[1], "tokens_total", "500")

    assert await _allow(redis, (200, 0), (300, 0), (1, 0), (1, 0)) == (2, "wait", 0)


async def test_a_request_that_what_is_spent_leaves_no_room_for_means_that_the_cap_is_reached(
    redis: Redis,
) -> None:
    await redis.hset(KEYS[0], mapping={"cap_tokens": "1000", "cap_pico": "5000"})
    await redis.hset(KEYS[1], mapping={"tokens_total": "500", "cost_pico": "4500"})

    assert await _allow(redis, (501, 0)) == (0, "tokens", 0)
    assert await _allow(redis, (1, 501)) == (0, "cost", 0)
    assert await _allow(redis, (500, 500)) == (1, "none", 0)


async def test_what_another_process_holds_is_waited_for_until_it_is_dead(redis: Redis) -> None:
    await redis.hset(KEYS[0], "cap_tokens", "1000")
    assert await _allow(redis, (900, 0), process="dying", hold_us=50_000) == (1, "none", 0)

    waits = [await _allow(redis, (200, 0), hold_us=50_000)]
    with anyio.fail_after(10):
        while waits[-1][1] == "wait":
            waits.append(await _allow(redis, (200, 0), hold_us=50_000))

    assert (waits[0], waits[-1]) == ((0, "wait", 0), (1, "none", 0))
    assert b"dying" not in await redis.hkeys(KEYS[2])


async def test_after_a_silence_of_all_processes_each_still_holds_its_part(redis: Redis) -> None:
    """Redis was away for longer than a part is held: what the others sent may be answered yet."""
    await redis.hset(KEYS[0], "cap_tokens", "1000")
    await _allow(redis, (900, 0), process="other", hold_us=50_000)
    await asyncio.sleep(0.06)

    assert await _allow(redis, (200, 0), hold_us=50_000) == (0, "wait", 0)


async def test_a_spare_is_small_against_what_is_left(redis: Redis) -> None:
    await redis.hset(KEYS[0], "cap_tokens", "1600")

    assert await _allow(redis, spare=50) == (0, "none", 50)
    assert await _allow(redis, spare=500) == (0, "none", 100)
    assert await _allow(redis, spare=500, held=(1600, 0)) == (0, "none", 0)


async def test_all_processes_together_spend_the_cap_and_no_more(redis: Redis) -> None:
    """Three of them, whose requests use what they are expected to: not one token too many."""
    await redis.hset(KEYS[0], "cap_tokens", "10000")
    spent = 0

    async def request(allowance: Allowance) -> None:
        nonlocal spent
        await allowance.take(Spend(100), Stop())
        await asyncio.sleep(0.001)
        spent += 90
        allowance.settle(Spend(100), Spend(90))
        await redis.hincrby(KEYS[1], "tokens_total", 90)
        allowance.written([_used(90)])

    async def send_on_and_on(allowance: Allowance) -> None:
        while True:
            await request(allowance)

    async def work(allowance: Allowance) -> None:
        with pytest.raises(CapReachedError, match=CAP_REACHED):
            await send_on_and_on(allowance)

    async with _allowances(redis, "a", "b", "c") as allowances, anyio.create_task_group() as tasks:
        for allowance in allowances * 5:
            tasks.start_soon(work, allowance)

    assert 10_000 - 100 < spent <= 10_000


async def test_the_reason_names_the_option_that_lets_the_job_go_on(redis: Redis) -> None:
    await redis.hset(KEYS[0], "cap_pico", str(PICO))
    await redis.hset(KEYS[1], "cost_pico", str(PICO))
    async with _allowances(redis, "a") as [allowance]:
        with pytest.raises(CapReachedError, match=f"resume {JOB} --max-cost USD"):
            await allowance.take(Spend(1, 1), Stop())


async def test_what_was_spent_stays_held_until_its_outcome_is_in_the_counts(redis: Redis) -> None:
    await redis.hset(KEYS[0], mapping={"cap_tokens": "100000", "cap_pico": str(PICO)})

    async def held() -> list[str]:
        return text(await redis.hget(KEYS[2], "a")).split()[:2]

    async with _allowances(redis, "a") as [allowance]:
        await allowance.take(Spend(100, 50), Stop())
        taken = await held()
        allowance.settle(Spend(100, 50), Spend(70, 10))
        await asyncio.sleep(0.6)
        settled = await held()
        allowance.written([_used(70, 10 / PICO)])
        for _ in range(200):
            if not await redis.exists(KEYS[2]):
                break
            await asyncio.sleep(0.01)

    assert int(taken[0]) >= 100
    assert settled == ["70", "10"]
    assert not await redis.exists(KEYS[2])


async def test_a_wait_for_the_cap_ends_with_the_batch_and_says_what_it_waits_for(
    redis: Redis,
) -> None:
    await redis.hset(KEYS[0], "cap_tokens", "1000")
    await _allow(redis, (1000, 0), process="other")
    stop = Stop()
    async with _allowances(redis, "a") as [allowance], anyio.create_task_group() as tasks:

        async def take() -> None:
            with pytest.raises(StoppedError):
                await allowance.take(Spend(10), stop)

        tasks.start_soon(take)
        await until(lambda: allowance.waiting_for == "the cap")
        stop.set(StopReason.SHUTDOWN)


async def test_a_hold_that_could_not_be_given_back_at_first_is_given_back_later(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await redis.hset(KEYS[0], "cap_tokens", "1000")
    failures = 2

    async def flaky(*args: Any, **kwargs: Any) -> Any:
        nonlocal failures
        if failures and not allowance._held.tokens and not allowance._waiters:
            failures -= 1
            raise StoreError("Redis cannot be reached")
        return await run_script(*args, **kwargs)

    monkeypatch.setattr("worker.allowance.LOOK_S", 0.01)
    monkeypatch.setattr("worker.allowance.run_script", flaky)
    async with _allowances(redis, "a") as [allowance]:
        await allowance.take(Spend(600), Stop())
        allowance.give_back(Spend(600))
        await asyncio.sleep(0.3)
        left = await redis.exists(KEYS[2])

    assert (failures, left) == (0, 0)


async def test_who_asks_after_the_stop_leaves_nothing_held(redis: Redis) -> None:
    """It would be held for as long as the process lives, and the job's last rows wait for it."""
    await redis.hset(KEYS[0], "cap_tokens", "1000")
    stop = Stop()
    stop.set(StopReason.PAUSED)
    async with _allowances(redis, "a") as [allowance]:
        with pytest.raises(StoppedError):
            await allowance.take(Spend(600), stop)
        with anyio.fail_after(5):
            await allowance.take(Spend(600), Stop())
            allowance.give_back(Spend(600))
            await allowance.take(Spend(1000), Stop())
