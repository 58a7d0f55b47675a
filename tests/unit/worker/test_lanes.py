"""A job's way to the shared limits: what it reserves, settles, and remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from redis.asyncio import Redis

from flavor.types import Request, Usage
from worker import lanes
from worker.jobs import Limits
from worker.lanes import Limiters
from worker.stop import Stop

REQUEST = Request(path="/x", body={}, rows=1, estimated_tokens=1100, answer_tokens=1000)
BOUNDED = replace(REQUEST, is_answer_bounded=True, answer_tokens=30)


@asynccontextmanager
async def _limiters(redis: Redis) -> AsyncIterator[Limiters]:
    async with anyio.create_task_group() as tasks:
        yield Limiters(redis, tasks)
        tasks.cancel_scope.cancel()


async def test_jobs_on_the_same_limit_share_a_limiter(redis: Redis) -> None:
    limits = Limits(requests_per_min=5)
    async with _limiters(redis) as limiters:
        one = limiters.of("endpoint", "gpt-x", limits)

        assert limiters.of("endpoint", "gpt-x", Limits(requests_per_min=5)) is one
        assert limiters.of("endpoint", "gpt-y", limits) is not one
        assert limiters.of("endpoint", "gpt-x", Limits()) is not one


async def test_what_answers_use_is_learned_and_outlives_a_batch(redis: Redis) -> None:
    """The first go by the estimate; then by 50 tokens asked, not 100, and 20 answered."""
    async with _limiters(redis) as limiters:
        limiter = limiters.of("endpoint", "gpt-x", Limits(tokens_per_min=10**9))
        lane = limiters.lane(limiter, job_id="a")
        first = await lane.reserve(REQUEST, Stop())
        for _ in range(20):
            lane.settle(
                REQUEST, first, [Usage(prompt_tokens=50, completion_tokens=20, total_tokens=70)]
            )

        later = await limiters.lane(limiter, job_id="a").reserve(REQUEST, Stop())
        of_another_job = await limiters.lane(limiter, job_id="b").reserve(REQUEST, Stop())

    assert (first, later, of_another_job) == (1100, 70, 1100)


async def test_max_tokens_bounds_what_is_reserved(redis: Redis) -> None:
    async with _limiters(redis) as limiters:
        limiter = limiters.of("endpoint", "gpt-x", Limits(tokens_per_min=10**9))
        lane = limiters.lane(limiter, job_id="a")
        for _ in range(20):
            lane.settle(
                REQUEST, 1100, [Usage(prompt_tokens=100, completion_tokens=500, total_tokens=600)]
            )

        assert await lane.reserve(REQUEST, Stop()) == 600
        assert await lane.reserve(BOUNDED, Stop()) == 30 + 1070


async def test_of_many_jobs_the_last_used_are_remembered(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "LANES", 2)
    async with _limiters(redis) as limiters:
        limiter = limiters.of("endpoint", "gpt-x", Limits())
        first = limiters.lane(limiter, job_id="a")
        limiters.lane(limiter, job_id="b")
        is_kept = limiters.lane(limiter, job_id="a") is first
        limiters.lane(limiter, job_id="c")

        assert is_kept
        assert limiters.lane(limiter, job_id="a") is first
