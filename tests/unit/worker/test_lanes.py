"""A job's way to the shared limits: what it reserves, settles, and remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from redis.asyncio import Redis

from flavor.types import Request, Usage
from tests.unit.worker.making import USAGE, make_outcome, until
from worker import keys, lanes
from worker.allowance import Allowance, Spend
from worker.expectation import Expected
from worker.jobs import Limits
from worker.lanes import Lanes
from worker.stop import Stop

REQUEST = Request(path="/x", body={}, rows=1, estimated_tokens=1100, answer_tokens=1000)
BOUNDED = replace(REQUEST, is_answer_bounded=True, answer_tokens=30)


@asynccontextmanager
async def _lanes(redis: Redis) -> AsyncIterator[Lanes]:
    async with anyio.create_task_group() as tasks:
        yield Lanes(redis, tasks)
        tasks.cancel_scope.cancel()


async def test_jobs_on_the_same_limit_share_a_limiter(redis: Redis) -> None:
    limits = Limits(requests_per_min=5)
    async with _lanes(redis) as found:
        one = found.of("endpoint", "gpt-x", limits, job_id="a")._limiter
        same = found.of("endpoint", "gpt-x", Limits(requests_per_min=5), job_id="b")

        assert same._limiter is one
        assert found.of("endpoint", "gpt-y", limits, job_id="a")._limiter is not one
        assert found.of("endpoint", "gpt-x", Limits(), job_id="a")._limiter is not one


async def test_what_answers_use_is_learned_and_outlives_a_batch(redis: Redis) -> None:
    """The first go by the estimate; then by 50 tokens asked, not 100, and 20 answered."""
    async with _lanes(redis) as found:
        limits = Limits(tokens_per_min=10**9)
        lane = found.of("endpoint", "gpt-x", limits, job_id="a")
        first = await lane.reserve(REQUEST, Stop())
        for _ in range(20):
            lane.settle(
                REQUEST,
                first,
                [Usage(prompt_tokens=50, completion_tokens=20, total_tokens=70)],
                latency_s=0.1,
            )

        later = await found.of("endpoint", "gpt-x", limits, job_id="a").reserve(REQUEST, Stop())
        of_another_job = await found.of("endpoint", "gpt-x", limits, job_id="b").reserve(
            REQUEST, Stop()
        )

    assert [e.tokens for e in (first, later, of_another_job)] == [1100, 70, 1100]


async def test_what_was_sent_before_a_cap_was_set_gives_back_nothing_of_it(redis: Redis) -> None:
    async with _lanes(redis) as found, anyio.create_task_group() as tasks:
        lane = found.of("endpoint", "gpt-x", Limits(), job_id="a")
        before = [await lane.reserve(REQUEST, Stop()) for _ in range(2)]
        allowance = Allowance(redis, "a", tasks, name="p")
        lane.spend(allowance, None)
        since = await lane.reserve(REQUEST, Stop())
        held = [allowance._held]
        lane.settle(REQUEST, before[0], [USAGE], latency_s=0.1)
        lane.written([make_outcome(0)])
        lane.release(before[1])
        held.append(allowance._held)
        lane.release(since)
        held.append(allowance._held)
        tasks.cancel_scope.cancel()

    assert held == [Spend(1100), Spend(1100), Spend(0)]


async def test_a_job_that_waits_for_its_cap_keeps_no_permit_from_others(redis: Redis) -> None:
    """Others hold what is left of the cap, and may be dead: that is told after 15 s."""
    await redis.hset(keys.job("short"), "cap_tokens", "10000")
    until_us = 4 * 10**15
    await redis.hset(keys.held("short"), "dead", f"10000 0 {until_us}")
    await redis.expire(keys.held("short"), 60)
    async with anyio.create_task_group() as tasks:
        found = Lanes(redis, tasks, most=2)
        limits = Limits(requests_per_min=10**6)
        short = found.of("endpoint", "gpt-x", limits, job_id="short")
        short.spend(Allowance(redis, "short", tasks, name="p"), None)
        for _ in range(5):
            tasks.start_soon(short.reserve, BOUNDED, Stop())
        await until(lambda: short.waiting_for == "the cap")

        other = found.of("endpoint", "gpt-x", limits, job_id="other")
        with anyio.fail_after(5):
            for _ in range(2):
                await other.reserve(BOUNDED, Stop())
        in_flight = (short.in_flight, other.in_flight)
        tasks.cancel_scope.cancel()

    assert in_flight == (0, 2)


async def test_max_tokens_bounds_what_is_reserved(redis: Redis) -> None:
    async with _lanes(redis) as found:
        limits = Limits(tokens_per_min=10**9)
        lane = found.of("endpoint", "gpt-x", limits, job_id="a")
        for _ in range(20):
            lane.settle(
                REQUEST,
                Expected(100, 1000),
                [Usage(prompt_tokens=100, completion_tokens=500, total_tokens=600)],
                latency_s=0.1,
            )

        assert (await lane.reserve(REQUEST, Stop())).tokens == 600
        assert (await lane.reserve(BOUNDED, Stop())).tokens == 30 + 1070


async def test_of_many_jobs_the_last_used_are_remembered(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "LANES", 2)
    async with _lanes(redis) as found:
        limits = Limits()
        first = found.of("endpoint", "gpt-x", limits, job_id="a")
        found.of("endpoint", "gpt-x", limits, job_id="b")
        is_kept = found.of("endpoint", "gpt-x", limits, job_id="a") is first
        found.of("endpoint", "gpt-x", limits, job_id="c")

        assert is_kept
        assert found.of("endpoint", "gpt-x", limits, job_id="a") is first
