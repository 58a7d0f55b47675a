"""The way of a row: render, reserve, send, settle, and again after a passing error.

This is the one layer that retries. It decides nothing about batches: whoever calls it gets an
outcome for every row, or an error that concerns the whole job (``JobError``) or the batch
(``StoppedError``). Rows that share a request (embeddings) go the way together; when the request is
refused, halving finds the row to blame. What a row needs on the way is ``worker.trip``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence

from flavor.errors import (
    ErrorInfo,
    RequestError,
    RowError,
    ThrottledError,
    TransientError,
)
from flavor.model import RowReply
from flavor.prices import cost_usd
from flavor.types import Response, Row
from worker.jobs import Outcome, Verdict
from worker.pending import Pending
from worker.trip import Trip, Way

log = logging.getLogger(__name__)


async def run_rows(rows: Sequence[Row], way: Way) -> list[Outcome]:
    """Send rows that share one request until each has its outcome, in the order given.

    Waits as long as limits, pauses and retries need, at most ``way.deadline_s``. What was sent is
    shown to ``way.trace`` once its outcomes are known.

    Raises:
        JobError: the endpoint refuses every request; these rows have no outcome.
        StoppedError: the batch stops; these rows have no outcome.
    """
    trip: Trip | None = None
    try:
        trip = Trip(rows, way.model.request(rows), way)
        outcomes = await _attempts(trip)
    except RowError as error:
        if len(rows) > 1:
            half = len(rows) // 2
            first = await run_rows(rows[:half], way)
            way.record(first)  # answered, whatever becomes of the others
            return first + await run_rows(rows[half:], way)
        outcomes = [_dead(rows[0], Verdict.REJECTED, info=error.info, trip=trip)]
    except (TransientError, ThrottledError) as error:
        outcomes = [_dead(row, Verdict.EXHAUSTED, info=error.info, trip=trip) for row in rows]
    except asyncio.TimeoutError:  # not the builtin one before Python 3.11
        info = _deadline_info(trip, way.deadline_s)
        outcomes = [_dead(row, Verdict.EXHAUSTED, info=info, trip=trip) for row in rows]
    if trip is not None and trip.is_sent:
        way.trace(trip, outcomes)
    return outcomes


async def _attempts(trip: Trip) -> list[Outcome]:
    """Nearly all rows need one attempt alone: a timer and tenacity are for the others."""
    failures = []
    if not trip.may_outlast:
        try:
            return await _attempt(trip)
        except (TransientError, ThrottledError) as error:
            failures = [error]  # tenacity is told of it below, as the end of a first attempt
    async with trip.deadline():
        outcomes: list[Outcome] = await trip.way.retrying()(_attempt_again, trip, failures)
    return outcomes


async def _attempt_again(trip: Trip, failures: list[RequestError]) -> list[Outcome]:
    if failures:
        raise failures.pop()
    return await _attempt(trip)


async def _attempt(trip: Trip) -> list[Outcome]:
    try:
        return await _try_once(trip)
    except RequestError as error:
        trip.release(error)
        raise
    except BaseException:
        trip.release()
        raise


async def _try_once(trip: Trip) -> list[Outcome]:
    way, breaker = trip.way, trip.way.breaker
    try:
        await trip.turn()
        _count(trip, way.tally)
        replies, response = await _send(trip)
    except ThrottledError as error:  # the reservation stays spent: the API counts refusals too
        breaker.heard(trip)
        await _pause_all(trip, error)
        raise
    except TransientError as error:
        _count_attempt(trip, error)
        raise
    except RequestError:
        if trip.reserved is None:  # it has not left: no limit or cap lets it pass
            breaker.left(trip)
        else:
            breaker.heard(trip)
            trip.attempts += 1
        raise
    except BaseException:  # the batch stops, or the deadline is over
        breaker.left(trip)
        raise
    breaker.heard(trip)
    trip.attempts += 1
    trip.settle([r.usage for r in replies if r.usage], latency_s=response.latency_s)
    way.limiter.heard(response.headers)
    return [
        _outcome(row, reply, response=response, trip=trip)
        for row, reply in zip(trip.rows, replies, strict=True)
    ]


async def _send(trip: Trip) -> tuple[list[RowReply], Response]:
    tally, rows = trip.way.tally, len(trip.rows)
    try:
        response = await trip.way.client.send(trip.request)
    except RequestError as error:
        tally.answered += error.info.status is not None
        tally.in_doubt += rows if error.may_be_paid else 0
        raise
    except BaseException:  # the deadline is over
        tally.in_doubt += rows
        raise
    tally.answered += 1
    trip.response = response
    try:
        return trip.way.model.replies(trip.request, response), response
    except RequestError:  # paid, and of no use
        tally.in_doubt += rows
        raise


def _count_attempt(trip: Trip, error: TransientError) -> None:
    trip.last = error
    if error.info.status is not None and error.info.status < 500:
        trip.way.breaker.heard(trip)  # a broken answer is an answer
        trip.attempts += 1
    else:
        trip.way.breaker.failed(trip, error)


def _count(trip: Trip, tally: Pending) -> None:
    tally.sent += 1
    tally.retried += trip.is_sent
    trip.is_sent = True
    trip.sent_s = asyncio.get_running_loop().time()


async def _pause_all(trip: Trip, error: ThrottledError) -> None:
    """One 429 holds back everybody on the limit, for as long as the server says."""
    trip.refusals += 1
    trip.last = error
    trip.way.tally.throttled += 1
    trip.way.limiter.heard(error.headers)
    pause_s = error.retry_after_s
    if pause_s is None:
        pause_s = min(2.0 ** min(trip.refusals - 1, 6), 60.0)
    log.debug(
        "request throttled",
        extra={"event": "request_throttled", "row_id": trip.rows[0].row_id, "pause_s": pause_s},
    )
    await trip.way.limiter.pause(pause_s)


def _outcome(row: Row, reply: RowReply, *, response: Response, trip: Trip) -> Outcome:
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


def _dead(row: Row, verdict: Verdict, *, info: ErrorInfo, trip: Trip | None) -> Outcome:
    return Outcome(
        row_id=row.row_id,
        index=row.index,
        verdict=verdict,
        attempts=trip.attempts if trip else 0,
        request_id=info.request_id,
        error=info,
    )


def _deadline_info(trip: Trip | None, deadline_s: float) -> ErrorInfo:
    last = trip.last.info.message if trip and trip.last else "it was still waiting for an answer"
    return ErrorInfo(
        type="DeadlineExceeded", message=f"no answer within {deadline_s:g} s; last: {last}"
    )
