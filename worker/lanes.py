"""Each job's way to the limits that it shares with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anyio.abc import TaskGroup
from redis.asyncio import Redis

from flavor.types import Request, Usage
from worker import keys
from worker.expectation import Expectation
from worker.jobs import Limits
from worker.limiter import Limiter, Waits
from worker.stop import Stop

LANES = 256
"""Jobs whose usage a process remembers."""


class Lane:
    """One job's way to a limiter: its place in the queue, and what its requests use."""

    def __init__(self, limiter: Limiter, *, job_id: str) -> None:
        self._limiter = limiter
        self._job_id = job_id
        self._expectation = Expectation()

    async def reserve(self, request: Request, stop: Stop) -> int:
        """Wait for the request's turn; the tokens that were reserved. See ``Limiter.reserve``."""
        tokens = self._expectation.tokens(request)
        await self._limiter.reserve(tokens, stop, job_id=self._job_id)
        return tokens

    def settle(self, request: Request, reserved_tokens: int, usages: Sequence[Usage]) -> None:
        """Correct a reservation by what was used; where nobody says what, it stays."""
        if not usages:
            return
        prompt = sum(usage.prompt_tokens for usage in usages)
        total = sum(usage.total_tokens for usage in usages)
        self._expectation.learn(request, prompt_tokens=prompt, completion_tokens=total - prompt)
        self._limiter.settle(reserved_tokens, total)

    def heard(self, headers: Mapping[str, str] | None) -> None:
        """Take in what an answer says of the limits."""
        self._limiter.heard(headers)

    async def pause(self, pause_s: float) -> None:
        """Hold everybody on the limit back."""
        await self._limiter.pause(pause_s)


class Limiters:
    """One limiter per endpoint, key, OpenAI model and limits, made when first asked for."""

    def __init__(
        self, redis: Redis, tasks: TaskGroup, *, name: str = "process", burst_s: float = 0.1
    ) -> None:
        self._redis = redis
        self._tasks = tasks
        self._name = name
        self._burst_s = burst_s
        self.waits = Waits()  # of all of them
        self._limiters: dict[tuple[tuple[str, str], Limits], Limiter] = {}
        self._lanes: dict[tuple[Limiter, str], Lane] = {}  # the last used one last

    def of(self, limit_key: str, openai_model: str, limits: Limits) -> Limiter:
        """The limiter that all jobs on the same limit share in this process."""
        key = (keys.limit(limit_key, openai_model), keys.askers(limit_key, openai_model))
        known = self._limiters.get((key, limits))
        if known is None:
            known = self._limiters[key, limits] = Limiter(
                self._redis,
                key,
                limits,
                name=self._name,
                burst_s=self._burst_s,
                waits=self.waits,
            )
            self._tasks.start_soon(known.serve)
        return known

    def lane(self, limiter: Limiter, *, job_id: str) -> Lane:
        """The job's way to a limiter; it remembers from batch to batch what requests use."""
        lane = self._lanes.pop((limiter, job_id), None) or Lane(limiter, job_id=job_id)
        self._lanes[limiter, job_id] = lane
        if len(self._lanes) > LANES:
            del self._lanes[next(iter(self._lanes))]
        return lane
