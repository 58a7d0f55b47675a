"""The requests-per-minute and tokens-per-minute limits that all workers share.

A row *reserves* one request and an estimate of tokens before it is sent and *settles* the
difference after, so the sum over all hosts stays within the account's limits. The arithmetic is in
``lua/reserve.lua``; a turn it gives may lie up to ``HORIZON_S`` ahead, and this file sleeps until
then. Rows that wait at the same time share one call. Without limits nothing is asked of Redis.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from anyio.abc import TaskGroup
from redis.asyncio import Redis

from flavor.errors import ErrorInfo, RowError, StoreError
from worker import keys
from worker.jobs import Limits
from worker.redis_client import run_script, text
from worker.stop import Stop, resolve

HORIZON_S = 1.0
"""How far ahead turns are given: long enough to share calls, short enough to follow a change."""

BURST_S = 0.1
"""How much unused time a bucket holds. Source: OpenAI may enforce 600 a minute as 10 a second."""

GROUP_S = 0.02
"""Between calls: rows that become ready in this time share the next one."""

_GROUP = 256
_RETRY_S = 0.5


@dataclass(slots=True)
class _Waiter:
    tokens: int
    turn: asyncio.Future[None]


@dataclass(slots=True)
class Waits:
    """How long requests have waited for their turn, and how many turns were given."""

    waited_s: float = 0.0
    turns: int = 0


class Limiter:
    """The shared limits of one endpoint, key and OpenAI model, as one process sees them.

    Belongs to one event loop. ``serve`` must run beside whoever reserves. ``waiting_for`` says in
    words what its rows wait for, or nothing.
    """

    def __init__(
        self, redis: Redis, key: str, limits: Limits, *, waits: Waits | None = None
    ) -> None:
        self._redis = redis
        self._key = key
        self._limits = limits
        self._waits = waits or Waits()
        self._waiters: deque[_Waiter] = deque()
        self._has_waiters = asyncio.Event()
        self._paused_until_s = 0.0
        self._unsettled = 0
        self._cause = ""

    @property
    def is_limited(self) -> bool:
        """Whether any limit is known."""
        return bool(self._limits.requests_per_min or self._limits.tokens_per_min)

    @property
    def waiting_for(self) -> str:
        """What keeps rows from being sent right now, in words; empty when nothing does."""
        if self._paused_until_s > asyncio.get_running_loop().time():
            return "the endpoint's pause"
        return self._cause if self._waiters else ""

    async def reserve(self, tokens: int, stop: Stop) -> None:
        """Wait for the turn of one request of about ``tokens`` tokens.

        Raises:
            RowError: the estimate exceeds a whole minute's limit; no wait could help.
            StoppedError: the batch stops; nothing may be sent.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        if self.is_limited:
            self._refuse_oversize(tokens)
            waiter = _Waiter(tokens=tokens, turn=loop.create_future())
            self._waiters.append(waiter)
            self._has_waiters.set()
            await stop.wait(waiter.turn)
        while (pause_s := self._paused_until_s - loop.time()) > 0:
            await stop.sleep(pause_s)
        self._waits.waited_s += loop.time() - began_s
        self._waits.turns += 1

    def settle(self, estimated_tokens: int, used_tokens: int) -> None:
        """Correct a reservation by what was used. Takes effect with the next reservation."""
        self._unsettled += used_tokens - estimated_tokens

    async def pause(self, pause_s: float) -> None:
        """Let nobody on this limit start a request for ``pause_s`` seconds. Does not wait."""
        loop = asyncio.get_running_loop()
        self._paused_until_s = max(self._paused_until_s, loop.time() + pause_s)
        if self.is_limited:
            with suppress(StoreError):  # Redis is away: the others learn by a 429 of their own
                await run_script(self._redis, "pause", keys=[self._key], args=[int(pause_s * 1e6)])

    async def serve(self) -> None:
        """Get turns for whoever waits, in groups. Runs until cancelled."""
        while True:
            await self._has_waiters.wait()
            await asyncio.sleep(0)  # let the other rows of this turn of the loop join the group
            try:
                await self._settle_differences()
                ask_again_s = await self._reserve_group()
            except StoreError:  # the limits cannot be read: hold the rows until they can
                self._cause, ask_again_s = "Redis", _RETRY_S
            if not self._waiters:
                self._has_waiters.clear()
            await asyncio.sleep(max(ask_again_s, GROUP_S))

    async def _reserve_group(self) -> float:
        """Ask for the turns of the first waiters; return how long until the others may ask."""
        loop = asyncio.get_running_loop()
        self._waiters = deque(waiter for waiter in self._waiters if not waiter.turn.done())
        group = list(islice(self._waiters, _GROUP))
        ask_again_us, cause, *turns_us = await run_script(
            self._redis,
            "reserve",
            keys=[self._key],
            args=[
                self._limits.requests_per_min or 0,
                self._limits.tokens_per_min or 0,
                int(BURST_S * 1e6),
                int(HORIZON_S * 1e6),
                *(waiter.tokens for waiter in group),
            ],
        )
        for turn_us in turns_us:
            loop.call_later(turn_us / 1e6, resolve, self._waiters.popleft().turn)
        self._cause = _CAUSES.get(text(cause), "")
        return float(ask_again_us) / 1e6

    async def _settle_differences(self) -> None:
        if self._unsettled and self._limits.tokens_per_min:
            difference, self._unsettled = self._unsettled, 0
            await run_script(
                self._redis,
                "settle",
                keys=[self._key],
                args=[self._limits.tokens_per_min, difference],
            )

    def _refuse_oversize(self, tokens: int) -> None:
        limit = self._limits.tokens_per_min
        if limit and tokens > limit:
            raise RowError(
                ErrorInfo(
                    type="TooLarge",
                    message=f"about {tokens} tokens; a whole minute allows {limit}",
                )
            )


_CAUSES = {
    "requests": "requests per minute",
    "tokens": "tokens per minute",
    "pause": "the endpoint's pause",
}


class Limiters:
    """One limiter per endpoint, key, OpenAI model and limits, made when first asked for."""

    def __init__(self, redis: Redis, tasks: TaskGroup) -> None:
        self._redis = redis
        self._tasks = tasks
        self.waits = Waits()  # of all of them
        self._limiters: dict[tuple[str, Limits], Limiter] = {}

    def of(self, limit_key: str, openai_model: str, limits: Limits) -> Limiter:
        """The limiter that all jobs on the same limit share in this process."""
        key = keys.limit(limit_key, openai_model)
        known = self._limiters.get((key, limits))
        if known is None:
            known = self._limiters[key, limits] = Limiter(
                self._redis, key, limits, waits=self.waits
            )
            self._tasks.start_soon(known.serve)
        return known
