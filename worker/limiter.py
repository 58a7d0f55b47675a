"""The requests-per-minute and tokens-per-minute limits that all workers share.

A row *reserves* one request and an estimate of tokens before it is sent and *settles* the
difference after, so the sum over all hosts stays within the account's limits. The arithmetic is in
``lua/reserve.lua``; a turn it gives may lie a little ahead, and this file sleeps until then. All
that a process has to ask and to tell goes into one call a few times a second. Limits that nobody
has set are learned from the answers' headers, and followed when they change.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from anyio import move_on_after
from redis.asyncio import Redis

from flavor.errors import ErrorInfo, RowError, StoreError
from flavor.rate_limits import RateLimit, RateLimits, read_rate_limits
from worker.discovery import Discovery
from worker.jobs import Limits
from worker.queues import Queues, Waiter
from worker.redis_client import run_script, text
from worker.spare import Spare
from worker.stop import Stop

LOOK_S = 0.5
"""Between looks at the shared state while the limit is in use: so soon all know of a pause."""

GROUP_S, MOST_GROUP_S = 0.004, 0.04
"""Between calls, per process that asks, and at most: rows that become ready in this time share the
next one. So Redis has at most 250 calls a second from up to ten processes."""

SPARE_S = 0.02
"""Between calls while no row waits: those that go have had their turns beforehand."""

READ_S = 0.05
"""Between readings of the answers' headers: a few a second say all that there is to say."""

RAMP_S = 0.1
"""Without limits to pace them, the rows that a pause has held back are spread over this."""

_IN_USE_S = 5.0
_MOST_SLEEP_S = 2.0  # below what lua/reserve.lua remembers askers for
_RETRY_S = 0.5


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
        self,
        redis: Redis,
        limit_keys: tuple[str, str],
        limits: Limits,
        *,
        name: str = "process",
        burst_s: float = 0.1,
        waits: Waits | None = None,
    ) -> None:
        self.limits = limits  # set by the user, or learned
        self._redis = redis
        self._keys = limit_keys  # KEYS of the scripts
        self._configured = limits
        self._name = name
        self._burst_us = int(burst_s * 1e6)
        self._waits = waits or Waits()
        self._queues = Queues()
        self._spare = Spare()
        self._jobs: set[str] = set()  # whose rows have taken spare turns since the last call
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()  # waiting_for is asked by other threads, too
        self._discovery = Discovery(is_known=self.is_limited)
        self._news = RateLimits()
        self._unsettled = 0
        self._epoch = -1
        self._processes = 1
        self._cause = ""
        self._paused_until_s = self._read_at_s = self._used_at_s = 0.0

    @property
    def is_limited(self) -> bool:
        """Whether any limit is known."""
        return bool(self.limits.requests_per_min or self.limits.tokens_per_min)

    @property
    def waiting_for(self) -> str:
        """What keeps rows from being sent right now, in words; empty when nothing does."""
        if self._paused_until_s > self._loop.time():
            return _CAUSES["pause"]
        return self._cause if self._queues else ""

    async def reserve(self, tokens: int, stop: Stop, *, job_id: str = "") -> None:
        """Wait for the turn of one request of about ``tokens`` tokens.

        Raises:
            RowError: the estimate exceeds a whole minute's limit; no wait could help.
            StoppedError: the batch stops; nothing may be sent.
        """
        stop.check()
        loop = self._loop
        began_s = self._used_at_s = loop.time()
        if not self._discovery.is_known:
            await self._discovery.wait(stop)
        if self.is_limited:
            self._refuse_oversize(tokens)
            await self._turn(tokens, stop, job_id=job_id)
        while (pause_s := self._paused_until_s - loop.time()) > 0:
            ramp_s = 0.0 if self.is_limited else random.random() * RAMP_S  # noqa: S311 - no secret
            await stop.sleep(pause_s + ramp_s)
        self._waits.waited_s += loop.time() - began_s
        self._waits.turns += 1

    async def _turn(self, tokens: int, stop: Stop, *, job_id: str) -> None:
        if self._spare.take(tokens, now_s=self._loop.time()):
            self._jobs.add(job_id)
            return
        self._wake.set()
        waiter = Waiter(tokens=tokens, turn=self._loop.create_future())
        self._queues.add(job_id, waiter)
        await stop.wait(waiter.turn)

    def settle(self, reserved_tokens: int, used_tokens: int) -> None:
        """Correct a reservation by what was used. Takes effect with the next call."""
        self._unsettled += used_tokens - reserved_tokens

    def heard(self, headers: Mapping[str, str] | None) -> None:
        """Take in what an answer says of the limits. Cheap: most are not even looked at."""
        now_s = asyncio.get_running_loop().time()
        if self._discovery.is_known and now_s < self._read_at_s:
            return
        self._read_at_s = now_s + READ_S
        news = read_rate_limits(headers)
        if news.requests or news.tokens:
            self._news = news
            self._learn(_per_min(news.requests), _per_min(news.tokens))
            self._wake.set()
        self._discovery.end()

    async def pause(self, pause_s: float) -> None:
        """Let nobody on this limit start a request for ``pause_s`` seconds. Does not wait."""
        until_s = asyncio.get_running_loop().time() + pause_s
        if until_s <= self._paused_until_s + 0.05:
            return  # known already: a storm of refusals is one piece of news
        self._paused_until_s = until_s
        self._void()
        with suppress(StoreError):  # Redis is away: the others learn by a 429 of their own
            args = [int(pause_s * 1e6), self._burst_us]
            self._epoch = int(await run_script(self._redis, "pause", keys=self._keys, args=args))

    async def serve(self) -> None:
        """Get turns for whoever waits, and tell what was learned. Runs until cancelled."""
        while True:
            try:
                pause_s = await self._exchange()
            except StoreError:  # the limits cannot be read: hold the rows until they can
                self._cause, pause_s = _CAUSES["redis"], _RETRY_S
            await asyncio.sleep(max(pause_s, min(self._processes * GROUP_S, MOST_GROUP_S)))
            if not self._queues:
                self._wake.clear()
                await self._idle()

    async def _idle(self) -> None:
        is_used = self._loop.time() - self._used_at_s < _IN_USE_S
        pause_s = SPARE_S if self._spare.is_used else LOOK_S if is_used else None
        with move_on_after(pause_s):
            await self._wake.wait()
        await asyncio.sleep(0)  # let the other rows of this turn of the loop join the group

    async def _exchange(self) -> float:
        """Tell, ask, and hand the turns out; how long the rows that got none sleep."""
        news, self._news = self._news, RateLimits()
        unsettled, self._unsettled = self._unsettled, 0
        jobs, self._jobs = self._jobs, set()
        asking, epoch = self._queues.asking(jobs), self._epoch
        waiting = [tokens for job in asking for tokens in job.tokens]
        wanted = self._spare.wanted(waiting, now_s=self._loop.time())
        try:
            reply = await run_script(
                self._redis,
                "reserve",
                keys=self._keys,
                args=[
                    self._configured.requests_per_min or 0,
                    self._configured.tokens_per_min or 0,
                    self._burst_us,
                    int(self._horizon_s * 1e6),
                    self._name,
                    unsettled,
                    *_heard_args(news.requests),
                    *_heard_args(news.tokens),
                    wanted.requests,
                    wanted.tokens_each,
                    wanted.unused,
                    epoch,
                    *(arg for job in asking for arg in (job.job_id, len(job.tokens), *job.tokens)),
                ],
            )
        except StoreError:
            self._unsettled += unsettled
            raise
        head, turns = reply[:9], reply[9:]
        has_all = len(turns) == 2 * len(waiting)
        if self._epoch in (epoch, int(head[5])):  # else a pause came between: these turns are void
            self._take_in(head)
            self._queues.give([job.job_id for job in asking], turns)
            self._spare.add(int(head[8]), wanted.tokens_each, now_s=self._loop.time())
            self._jobs |= self._queues.let_go(self._spare)
        if has_all or not self._queues:  # who came during the call has not been refused anything
            return 0.0
        # What is free before the horizon is asked for twice before it is due.
        return max(self._horizon_s * 0.45, min(float(head[0]) / 1e6, _MOST_SLEEP_S))

    def _take_in(self, head: Sequence[int | bytes]) -> None:
        cause, (rpm, tpm, is_heard, epoch) = text(head[1]), map(int, head[2:6])
        pause_us, processes = map(int, head[6:8])
        self._cause, self._processes = _CAUSES.get(cause, ""), max(1, processes)
        self._learn(rpm, tpm)
        if is_heard:
            self._discovery.end()
        if self._epoch not in (-1, epoch):  # another process met a 429
            self._void()
        self._epoch = epoch
        if pause_us:
            until_s = asyncio.get_running_loop().time() + pause_us / 1e6
            self._paused_until_s = max(self._paused_until_s, until_s)

    def _void(self) -> None:
        self._queues.void()
        self._spare.void()

    @property
    def _horizon_s(self) -> float:
        """How far ahead turns are given: the more processes, the fewer rows each has per call."""
        return min(1.0, 0.4 + 0.1 * self._processes)

    def _learn(self, rpm: int | None, tpm: int | None) -> None:
        self.limits = Limits(
            requests_per_min=self._configured.requests_per_min
            or (self.limits.requests_per_min if rpm is None else rpm or None),
            tokens_per_min=self._configured.tokens_per_min
            or (self.limits.tokens_per_min if tpm is None else tpm or None),
        )
        if limit := self.limits.tokens_per_min:
            self._queues.refuse(above=limit, error=_too_large)

    def _refuse_oversize(self, tokens: int) -> None:
        limit = self.limits.tokens_per_min
        if limit and tokens > limit:
            raise _too_large(tokens, limit)


_CAUSES = {
    "requests": "requests per minute",
    "tokens": "tokens per minute",
    "pause": "the endpoint's pause",
    "redis": "Redis",
}


def _too_large(tokens: int, limit: int) -> RowError:
    message = f"about {tokens} tokens; a whole minute allows {limit}"
    return RowError(ErrorInfo(type="TooLarge", message=message))


def _per_min(limit: RateLimit | None) -> int | None:
    """None where nothing was said; 0 where there is no limit per minute."""
    return None if limit is None else limit.per_min or 0


def _heard_args(limit: RateLimit | None) -> tuple[int | str, int | str]:
    per_min = _per_min(limit)
    used_s = limit.used_s if limit else None
    return (
        "" if per_min is None else per_min,
        "" if used_s is None else int(used_s * 1e6),
    )
