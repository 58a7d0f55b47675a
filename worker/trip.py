"""What a row's request needs on its way, and how far it has come: attempts, waits, its deadline.

State and waiting alone; what an answer or an error means is decided in ``worker.row``.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential_jitter

from flavor.errors import RequestError, ThrottledError, TransientError
from flavor.model import RowReply
from flavor.prices import Price
from flavor.types import Request, Response, Row, Usage
from worker.breaker import Breaker
from worker.expectation import Expected
from worker.gate import Gate
from worker.jobs import Outcome
from worker.pending import Pending
from worker.stop import Stop

if sys.version_info >= (3, 11):
    from asyncio import Timeout, timeout_at

    _move = Timeout.reschedule
else:
    from async_timeout import Timeout, timeout_at

    _move = Timeout.update

_backoff = wait_exponential_jitter(multiplier=0.5, max=60, jitter=0.5)

_FAR_S = 10 * 365 * 24 * 3600.0

PROBES = 10
"""A row that served as so many probes of a dead endpoint, for as long as its deadline allows, may
itself be what kills the endpoint: it ends."""


class SupportsSend(Protocol):
    """Whatever sends requests: ``flavor.client.Client``, or a test's script."""

    async def send(self, request: Request) -> Response:
        """Send once. Raises ``RequestError``'s subclasses."""
        ...


class SupportsReserve(Protocol):
    """Whatever gives turns: ``worker.lanes.Lane``, or a test's."""

    async def reserve(self, request: Request, stop: Stop) -> Expected:
        """Wait for a turn; what was reserved."""
        ...

    def settle(
        self, request: Request, reserved: Expected, usages: Sequence[Usage], *, latency_s: float
    ) -> None:
        """Correct a reservation by what was used."""
        ...

    def release(self, reserved: Expected, error: RequestError | None = None) -> None:
        """The request failed, or was not sent."""
        ...

    def heard(self, headers: Mapping[str, str] | None) -> None:
        """Take in what an answer says of the limits."""
        ...

    async def pause(self, pause_s: float) -> None:
        """Hold everybody back."""
        ...


class SupportsRequest(Protocol):
    """Whatever renders rows and reads answers: ``flavor.model.OpenAIModel``, or a test's."""

    def request(self, rows: Sequence[Row]) -> Request:
        """Render rows that share one request. Raises ``RowError``."""
        ...

    def replies(self, request: Request, response: Response) -> list[RowReply]:
        """One per row, in their order. Raises ``TransientError`` where the answer is broken."""
        ...


@dataclass(slots=True, kw_only=True)
class Way:
    """What the rows of one batch need on their way.

    ``tally`` counts the requests they make. ``record`` takes outcomes as soon as they are known,
    and may be given the same ones again. ``trace`` sees every request that was sent, when its rows
    have their outcomes. ``timeout_s`` bounds one call of the client's, unless the request says how
    long it may take.
    """

    model: SupportsRequest
    client: SupportsSend
    limiter: SupportsReserve
    breaker: Breaker
    gate: Gate
    stop: Stop
    max_attempts: int
    deadline_s: float
    timeout_s: float = math.inf
    price: Price | None = None
    tally: Pending = field(default_factory=Pending)
    record: Callable[[Sequence[Outcome]], None] = lambda _: None
    trace: Callable[[Trip, Sequence[Outcome]], None] = lambda *_: None

    def retrying(self) -> AsyncRetrying:
        """For one request: until it is answered, or may not be tried any more.

        Made when it is needed: kept here, it would refer to what refers to it, and the batch with
        all its outcomes would stay until the garbage collector comes by.
        """
        return AsyncRetrying(
            retry=retry_if_exception_type((TransientError, ThrottledError)),
            stop=self._has_spent_its_attempts,
            wait=_pause_before_next,
            sleep=self.stop.sleep,
            reraise=True,
        )

    def _has_spent_its_attempts(self, state: RetryCallState) -> bool:
        trip: Trip = state.args[0]
        if trip.attempts >= self.max_attempts:
            return True
        age_s = asyncio.get_running_loop().time() - trip.began_s
        return trip.probes >= PROBES and age_s > self.deadline_s


@dataclass(slots=True, eq=False)
class Trip:
    """One request's tries. Refusals by a limit are no attempts, nor is what a dead endpoint does.

    Times are the loop's.
    """

    rows: Sequence[Row]
    request: Request
    way: Way
    attempts: int = 0
    probes: int = 0
    refusals: int = 0
    reserved: Expected | None = None  # while it has its turn
    is_sent: bool = False  # at least once
    sent_s: float = 0.0  # when, the last time
    last: RequestError | None = None
    response: Response | None = None  # the last one
    began_s: float = 0.0  # when its first attempt was let go
    _ends_s: float | None = None  # from then on
    _scope: Timeout | None = None

    @property
    def may_outlast(self) -> bool:
        """Whether its first attempt alone may take longer than the way's deadline allows.

        A call may be made twice: the client may have to fetch a new token.
        """
        return 2 * (self.request.timeout_s or self.way.timeout_s) >= self.way.deadline_s

    def deadline(self) -> Timeout:
        """Bounds an ``async with`` block by the way's deadline: ``asyncio.TimeoutError`` ends it.

        It runs from the first attempt on: at three requests a minute, the last of a process's rows
        is let go after an hour and more. Waits for services do not count.
        """
        self._scope = timeout_at(self._ends_s)
        return self._scope

    async def turn(self) -> None:
        """Wait until the endpoint, Redis and the limits all allow the request.

        Raises:
            RowError: the limits would never allow it.
            StoppedError: the batch stops; nothing may be sent.
        """
        way = self.way
        while True:
            if way.breaker.is_open or way.gate.is_closed:
                await self._services()
            self.reserved = await way.limiter.reserve(self.request, way.stop)
            # An outage that began meanwhile costs the turn: the limits have moved on when it ends.
            if not (way.gate.is_closed or way.breaker.holds_back(self)):
                way.stop.check()
                if not self.is_sent:
                    self._begin()
                return
            self.release()

    def settle(self, usages: Sequence[Usage], *, latency_s: float) -> None:
        """The request was answered and used this much."""
        if self.reserved is not None:
            self.way.limiter.settle(self.request, self.reserved, usages, latency_s=latency_s)
            self.reserved = None

    def release(self, error: RequestError | None = None) -> None:
        """The request failed, or was not sent after all: give back what may be given back."""
        if self.reserved is not None:
            self.way.limiter.release(self.reserved, error)
            self.reserved = None

    def _begin(self) -> None:
        self.began_s = asyncio.get_running_loop().time()
        self._ends_s = self.began_s + self.way.deadline_s
        if self._scope is not None:
            _move(self._scope, self._ends_s)

    async def _services(self) -> None:
        """Wait while the endpoint or Redis is away; no row's fault: its deadline stands still."""
        loop, way = asyncio.get_running_loop(), self.way
        began_s = loop.time()
        if self._scope is not None and self.is_sent:
            _move(self._scope, began_s + _FAR_S)
        await way.gate.wait(way.stop)
        await way.breaker.enter(self, way.stop)
        if self._scope is not None and self._ends_s is not None and self.is_sent:
            self._ends_s += loop.time() - began_s
            _move(self._scope, self._ends_s)


def _pause_before_next(state: RetryCallState) -> float:
    """The server's own word first, else growing pauses. A throttled row waits in the limiter."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, ThrottledError):
        return 0.0
    if isinstance(error, TransientError) and error.retry_after_s is not None:
        return error.retry_after_s
    return float(_backoff(state))
