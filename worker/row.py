"""The way of a row: render, reserve, send, settle, and again after a passing error.

This is the one layer that retries. It decides nothing about batches: whoever calls it gets an
outcome for every row, or an error that concerns the whole job (``JobError``) or the batch
(``StoppedError``). Rows that share a request (embeddings) go the way together; when the request is
refused, halving finds the row to blame.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential_jitter

from flavor.errors import ErrorInfo, RequestError, RowError, ThrottledError, TransientError
from flavor.model import RowReply
from flavor.prices import Price, cost_usd
from flavor.types import Request, Response, Row
from worker.jobs import Outcome, Verdict
from worker.ledger import Pending
from worker.stop import Stop

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

log = logging.getLogger(__name__)

_backoff = wait_exponential_jitter(multiplier=0.5, max=60, jitter=0.5)


class SupportsSend(Protocol):
    """Whatever sends requests: ``flavor.client.Client``, or a test's script."""

    async def send(self, request: Request) -> Response:
        """Send once. Raises ``RequestError``'s subclasses."""
        ...


class SupportsReserve(Protocol):
    """Whatever gives turns: ``worker.limiter.Limiter``, or a test's."""

    async def reserve(self, tokens: int, stop: Stop) -> None:
        """Wait for a turn."""
        ...

    def settle(self, estimated_tokens: int, used_tokens: int) -> None:
        """Correct the estimate."""
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
    and may be given the same ones again.
    """

    model: SupportsRequest
    client: SupportsSend
    limiter: SupportsReserve
    stop: Stop
    max_attempts: int
    deadline_s: float
    price: Price | None = None
    tally: Pending = field(default_factory=Pending)
    record: Callable[[Sequence[Outcome]], None] = lambda _: None
    retrying: AsyncRetrying = field(init=False)

    def __post_init__(self) -> None:
        self.retrying = AsyncRetrying(
            retry=retry_if_exception_type((TransientError, ThrottledError)),
            stop=self._has_spent_its_attempts,
            wait=_pause_before_next,
            sleep=self.stop.sleep,
            reraise=True,
        )

    def _has_spent_its_attempts(self, state: RetryCallState) -> bool:
        trip: _Trip = state.args[0]
        return trip.attempts >= self.max_attempts


@dataclass(slots=True)
class _Trip:
    """One request's tries. Refusals by a limit are no attempts."""

    rows: Sequence[Row]
    request: Request
    way: Way
    attempts: int = 0
    refusals: int = 0
    last: RequestError | None = None


async def run_rows(rows: Sequence[Row], way: Way) -> list[Outcome]:
    """Send rows that share one request until each has its outcome, in the order given.

    Waits as long as limits, pauses and retries need, at most ``way.deadline_s``.

    Raises:
        JobError: the endpoint refuses every request; these rows have no outcome.
        StoppedError: the batch stops; these rows have no outcome.
    """
    trip: _Trip | None = None
    try:
        trip = _Trip(rows, way.model.request(rows), way)
        async with timeout(way.deadline_s):
            outcomes: list[Outcome] = await way.retrying(_attempt, trip)
    except RowError as error:
        if len(rows) > 1:
            half = len(rows) // 2
            first = await run_rows(rows[:half], way)
            way.record(first)  # answered, whatever becomes of the others
            return first + await run_rows(rows[half:], way)
        return [_dead(rows[0], Verdict.REJECTED, info=error.info, trip=trip)]
    except (TransientError, ThrottledError) as error:
        return [_dead(row, Verdict.EXHAUSTED, info=error.info, trip=trip) for row in rows]
    except asyncio.TimeoutError:  # not the builtin one before Python 3.11
        info = _deadline_info(trip, way.deadline_s)
        return [_dead(row, Verdict.EXHAUSTED, info=info, trip=trip) for row in rows]
    return outcomes


async def _attempt(trip: _Trip) -> list[Outcome]:
    way, request = trip.way, trip.request
    await way.limiter.reserve(request.estimated_tokens, way.stop)
    way.stop.check()
    _count(trip, way.tally)
    try:
        response = await way.client.send(request)
        replies = way.model.replies(request, response)
    except ThrottledError as error:  # the reservation stays spent: the API counts refusals too
        await _pause_all(trip, error)
        raise
    except TransientError as error:
        trip.attempts += 1
        trip.last = error
        raise
    except RowError:
        trip.attempts += 1
        raise
    trip.attempts += 1
    used = sum(reply.usage.total_tokens for reply in replies if reply.usage)
    if used:
        way.limiter.settle(request.estimated_tokens, used)
    return [
        _outcome(row, reply, response=response, trip=trip)
        for row, reply in zip(trip.rows, replies, strict=True)
    ]


def _count(trip: _Trip, tally: Pending) -> None:
    tally.sent += 1
    if trip.attempts or trip.refusals:
        tally.retried += 1


async def _pause_all(trip: _Trip, error: ThrottledError) -> None:
    """One 429 holds back everybody on the limit, for as long as the server says."""
    trip.refusals += 1
    trip.last = error
    trip.way.tally.throttled += 1
    pause_s = error.retry_after_s
    if pause_s is None:
        pause_s = min(2.0 ** min(trip.refusals - 1, 6), 60.0)
    log.debug(
        "request throttled",
        extra={"event": "request_throttled", "row_id": trip.rows[0].row_id, "pause_s": pause_s},
    )
    await trip.way.limiter.pause(pause_s)


def _pause_before_next(state: RetryCallState) -> float:
    """The server's own word first, else growing pauses. A throttled row waits in the limiter."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, ThrottledError):
        return 0.0
    if isinstance(error, TransientError) and error.retry_after_s is not None:
        return error.retry_after_s
    return float(_backoff(state))


def _outcome(row: Row, reply: RowReply, *, response: Response, trip: _Trip) -> Outcome:
    if isinstance(reply, RowError):
        dead = _dead(row, Verdict.REJECTED, info=reply.info, trip=trip)
        # A filtered answer is billed like any other.
        cost = cost_usd(trip.way.price, reply.usage)
        return dataclasses.replace(dead, usage=reply.usage, cost_usd=cost)
    return Outcome(
        row_id=row.row_id,
        index=row.index,
        verdict=Verdict.SUCCEEDED,
        output=reply.output,
        finish_reason=reply.finish_reason,
        usage=reply.usage,
        cost_usd=cost_usd(trip.way.price, reply.usage),
        attempts=trip.attempts,
        latency_s=response.latency_s,
        request_id=response.request_id,
        response_model=reply.response_model,
    )


def _dead(row: Row, verdict: Verdict, *, info: ErrorInfo, trip: _Trip | None) -> Outcome:
    return Outcome(
        row_id=row.row_id,
        index=row.index,
        verdict=verdict,
        attempts=trip.attempts if trip else 0,
        request_id=info.request_id,
        error=info,
    )


def _deadline_info(trip: _Trip | None, deadline_s: float) -> ErrorInfo:
    last = trip.last.info.message if trip and trip.last else "it was still waiting for its turn"
    return ErrorInfo(
        type="DeadlineExceeded", message=f"no answer within {deadline_s:g} s; last: {last}"
    )
