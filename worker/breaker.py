"""The circuit breaker of an endpoint, shared by all workers: while it is down, rows wait for free.

An endpoint is *down* when it fails whoever asks it, ``TRIP`` requests in a row. From then on only
one probe at a time is sent, fleet-wide, at growing intervals; the first answer lets all go on. What
only a server in trouble says is an attempt of the row's as soon as a request that was sent later
is answered, and not before. The shared state is in ``lua/trip.lua`` and ``lua/probe.lua``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import anyio
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from flavor.errors import StoreError, TransientError
from flavor.types import StrEnum
from worker import keys
from worker.redis_client import run_script, text, translated_errors
from worker.stop import Stop, resolve

log = logging.getLogger(__name__)

TRIP = 5
"""Failures in a row, with no answer in between, that open the breaker."""

LOOK_S = 1.0
"""Between looks at the shared state: so soon every worker knows of a trip, and of its end."""

FIRST_WAIT_MS = 1000
MAX_WAIT_MS = 30_000
MAX_WAIT_OF_ERRORS_MS = 5000
"""Between probes that meet the server's own errors: a row that may be to blame pays an attempt."""

PROBE_MS = 60_000
"""After so long without a word of it, a probe counts as lost and another may go."""


class Trip(Protocol):
    """One request's tries, as far as the breaker is concerned."""

    attempts: int
    probes: int
    sent_s: float  # the loop's time of the last request


class _News(StrEnum):
    """What this process has to tell the others."""

    DOWN = "down"
    STILL_DOWN = "still_down"
    UP = "up"


@dataclass(slots=True)
class _Failure:
    """One that no answer to a later request has made its row's own; others may come in between."""

    at_s: float
    trip: Trip
    is_outage: bool  # then it is no attempt so far; else it is one, until the breaker opens


@dataclass(slots=True)
class _Waiter:
    trip: Trip
    turn: asyncio.Future[None]


class Breaker:
    """One endpoint's breaker, as one process sees it. Belongs to one event loop.

    ``serve`` must run beside whoever enters. After ``enter`` each trip ends with one of ``heard``,
    ``failed`` and ``left``. While Redis is away nothing is probed: nothing could be kept either.
    """

    def __init__(self, redis: Redis, key: str, *, look_s: float = LOOK_S) -> None:
        self._redis = redis
        self._key = key
        self._look_s = look_s
        self.is_open = False
        self._reason = ""
        self._streak: list[Trip] = []  # failures since the last answer
        self._unsure: deque[_Failure] = deque()  # oldest first
        self._waiters: deque[_Waiter] = deque()
        self._probe: Trip | None = None
        self._news: _News | None = None
        self._max_wait_ms = MAX_WAIT_MS
        self._least_wait_ms = 0
        self._wake = asyncio.Event()

    @property
    def waiting_for(self) -> str:
        """What rows wait for, in words; empty while the endpoint is up."""
        return f"the endpoint, which is down: {self._reason}" if self.is_open else ""

    async def enter(self, trip: Trip, stop: Stop) -> None:
        """Wait until the endpoint is up, or until this trip shall be the one that tries it.

        Raises:
            StoppedError: the batch stops; nothing may be sent.
        """
        while self.holds_back(trip):
            waiter = _Waiter(trip, asyncio.get_running_loop().create_future())
            self._waiters.append(waiter)
            self._wake.set()
            try:
                await stop.wait(waiter.turn)
            except BaseException:
                self.left(trip)
                raise

    def holds_back(self, trip: Trip) -> bool:
        """Whether this trip must not be sent now."""
        return self.is_open and self._probe is not trip

    def heard(self, trip: Trip) -> None:
        """The endpoint has answered, whatever it said: it is up."""
        if self._probe is trip:
            self._probe = None
        if self._unsure:
            self._streak.clear()
            self._judge(trip.sent_s)
        if self.is_open:
            self._close()
            self._tell(_News.UP)

    def failed(self, trip: Trip, error: TransientError) -> None:
        """The request failed in a passing way: count an attempt, unless the endpoint is down."""
        is_outage = error.is_outage
        if self.is_open:
            if self._probe is trip:
                self._probe = None
                trip.probes += 1
                trip.attempts += not is_outage  # the server is there: the row may be to blame
                self._note(error, is_outage=is_outage)
                self._tell(_News.STILL_DOWN)
            return
        trip.attempts += not is_outage
        self._streak.append(trip)
        self._unsure.append(_Failure(asyncio.get_running_loop().time(), trip, is_outage))
        if is_down(self._streak, is_outage=is_outage):
            for failure in self._unsure:
                failure.trip.attempts -= not failure.is_outage
            self._unsure.clear()
            self._streak.clear()
            self._note(error, is_outage=is_outage)
            self._open()
            self._tell(_News.DOWN)

    def left(self, trip: Trip) -> None:
        """The trip ends without having been sent; if it was the probe, another may go."""
        self._waiters = deque(w for w in self._waiters if not w.turn.done())
        if self._probe is trip:
            self._probe = None
            self._tell(_News.STILL_DOWN)

    async def look(self) -> None:
        """See whether another worker has found the endpoint down. Raises ``StoreError``."""
        async with translated_errors():
            reason = await self._redis.hget(self._key, "reason")
        if reason is not None and not self.is_open and self._news is None:
            self._reason = text(reason)
            self._open()

    async def serve(self) -> None:
        """Tell the others, and let probes through. Runs until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._tell_others()
                wait_s = await self._turn() if self.is_open else None
            except StoreError:
                wait_s = self._look_s
            if wait_s is not None:
                with anyio.move_on_after(wait_s):
                    await self._wake.wait()
                self._wake.set()

    async def _tell_others(self) -> None:
        news = self._news
        if news is _News.UP:
            async with translated_errors():
                await self._redis.delete(self._key)
        elif news is not None:
            is_probe = int(news is _News.STILL_DOWN)
            waits = [FIRST_WAIT_MS, self._max_wait_ms, self._least_wait_ms]
            await run_script(
                self._redis, "trip", keys=[self._key], args=[is_probe, *waits, self._reason]
            )
        if self._news is news:
            self._news = None

    async def _turn(self) -> float:
        """Look at the shared state once; returns how long until the next look."""
        self._waiters = deque(w for w in self._waiters if not w.turn.done())
        may_probe = bool(self._waiters) and self._probe is None
        status, wait_ms, reason = await run_script(
            self._redis, "probe", keys=[self._key], args=[PROBE_MS if may_probe else 0]
        )
        if self._news is not None:
            return 0.0  # something was heard meanwhile
        if text(status) == "closed":
            self._close()
        elif text(status) == "probe":
            self._let_one_through()
        self._reason = text(reason) or self._reason
        wait_s = max(int(wait_ms) / 1000, 0.01) if may_probe else self._look_s
        return min(wait_s, self._look_s)

    def _let_one_through(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.turn.done():
                self._probe = waiter.trip
                resolve(waiter.turn)
                return
        self._tell(_News.STILL_DOWN)  # all of them have left meanwhile

    def _judge(self, sent_s: float) -> None:
        """What was sent at ``sent_s`` is answered: the endpoint was not down before that."""
        while self._unsure and self._unsure[0].at_s < sent_s:
            failure = self._unsure.popleft()
            failure.trip.attempts += failure.is_outage

    def _note(self, error: TransientError, *, is_outage: bool) -> None:
        self._reason = error.info.message
        self._max_wait_ms = MAX_WAIT_MS if is_outage else MAX_WAIT_OF_ERRORS_MS
        self._least_wait_ms = int((error.retry_after_s or 0) * 1000)

    def _open(self) -> None:
        self.is_open = True
        self._wake.set()
        log.warning("endpoint is down", extra={"event": "breaker_opened", "reason": self._reason})

    def _close(self) -> None:
        self.is_open = False
        for waiter in self._waiters:
            resolve(waiter.turn)
        self._waiters.clear()
        log.warning("endpoint is up again", extra={"event": "breaker_closed"})

    def _tell(self, news: _News) -> None:
        self._news = news
        self._wake.set()


def is_down(streak: Sequence[Trip], *, is_outage: bool) -> bool:
    """Whether failures in a row are the endpoint's fault, and not that of the rows that met them.

    Errors that only a server in trouble gives count whoever met them; others must have met
    ``TRIP`` different rows, since one bad row alone can be answered 500 for ever.
    """
    if len(streak) < TRIP:
        return False
    return is_outage or len({id(trip) for trip in streak}) >= TRIP


class Breakers:
    """One breaker per endpoint, key and OpenAI model, made when first asked for."""

    def __init__(self, redis: Redis, tasks: TaskGroup) -> None:
        self._redis = redis
        self._tasks = tasks
        self._breakers: dict[str, Breaker] = {}

    def of(self, limit_key: str, openai_model: str) -> Breaker:
        """The breaker that all jobs on the same endpoint share in this process."""
        key = keys.breaker(limit_key, openai_model)
        known = self._breakers.get(key)
        if known is None:
            known = self._breakers[key] = Breaker(self._redis, key)
            self._tasks.start_soon(known.serve)
        return known

    @property
    def are_open(self) -> bool:
        """Whether any endpoint is down."""
        return any(breaker.is_open for breaker in list(self._breakers.values()))

    async def look(self) -> None:
        """Hear what other workers have found. Raises ``StoreError``."""
        for breaker in self._breakers.values():
            if not breaker.is_open:
                await breaker.look()
