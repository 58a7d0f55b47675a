"""The circuit breaker: when an endpoint counts as down, who may try it, and who pays for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest
from redis.asyncio import Redis

from flavor.errors import TransientError
from tests.unit.worker.fakes import ScriptedClient, ScriptedModel
from tests.unit.worker.making import error_info, make_rows, until
from tests.unit.worker.trips import Trip, transient
from worker.breaker import TRIP, Breaker, Breakers
from worker.gate import Duty
from worker.jobs import Verdict
from worker.stop import Stop, StoppedError, StopReason

KEY = "breaker:{endpoint:gpt}"


@dataclass(eq=False)
class Going:
    """A trip as the breaker sees it."""

    attempts: int = 0
    probes: int = 0
    sent_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())


REFUSED = TransientError(error_info("connection refused"))
BROKEN = TransientError(error_info("server error", status=500))
AWAY = TransientError(error_info("unavailable", status=503))


@asynccontextmanager
async def _serving(*breakers: Breaker) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        for breaker in breakers:
            tasks.start_soon(breaker.serve)
        yield
        tasks.cancel_scope.cancel()


async def _probes_are_due(redis: Redis) -> None:
    """Let the time until the next probe have passed, without waiting for it."""
    for _ in range(10_000):
        if await redis.exists(KEY):
            await redis.hset(KEY, "retry_us", "0")
            return
    raise AssertionError("nobody has opened the breaker")


@pytest.mark.parametrize("error", [REFUSED, AWAY])
async def test_an_endpoint_that_fails_whoever_asks_is_down_and_costs_no_attempt(
    redis: Redis, error: TransientError
) -> None:
    breaker = Breaker(redis, KEY, look_s=0.01)
    one = Going()

    for _ in range(TRIP - 1):
        breaker.failed(one, error)
    before = (breaker.is_open, one.attempts)
    breaker.failed(one, error)

    assert before == (False, 0)
    assert (breaker.is_open, one.attempts) == (True, 0)
    assert error.info.message in breaker.waiting_for


async def test_errors_of_the_servers_own_must_meet_different_rows(redis: Redis) -> None:
    """A bad row can be answered 500 for ever: the last one left must not stop the job."""
    breaker = Breaker(redis, KEY, look_s=0.01)
    bad, others = Going(), [Going() for _ in range(TRIP - 1)]

    for _ in range(3 * TRIP):
        breaker.failed(bad, BROKEN)
    is_open_for_one = breaker.is_open
    for other in others:
        breaker.failed(other, BROKEN)

    assert (is_open_for_one, breaker.is_open) == (False, True)
    assert [other.attempts for other in others] == [0] * (TRIP - 1)


async def test_an_answer_in_between_starts_the_count_anew(redis: Redis) -> None:
    breaker = Breaker(redis, KEY, look_s=0.01)
    trip = Going()

    for _ in range(3):
        for _ in range(TRIP - 1):
            breaker.failed(trip, REFUSED)
        await asyncio.sleep(0.001)
        breaker.heard(Going())
    for _ in range(TRIP):
        breaker.failed(Going(), REFUSED)

    assert (breaker.is_open, trip.attempts) == (True, 3 * (TRIP - 1))


async def test_an_answer_to_what_was_sent_before_the_outage_blames_no_row(redis: Redis) -> None:
    """While an endpoint goes down, what is under way is still answered, between the failures."""
    breaker = Breaker(redis, KEY, look_s=0.01)
    sent_before, failed = Going(), Going()
    await asyncio.sleep(0.001)

    breaker.failed(failed, AWAY)
    breaker.heard(sent_before)
    for _ in range(TRIP - 1):
        breaker.failed(Going(), AWAY)
    is_open_early = breaker.is_open
    breaker.failed(Going(), AWAY)

    assert (is_open_early, breaker.is_open) == (False, True)
    assert failed.attempts == 0


@pytest.mark.parametrize(("error", "at_once"), [(AWAY, 0), (BROKEN, 1)])
async def test_what_only_a_server_in_trouble_says_costs_an_attempt_once_a_later_request_is_answered(
    redis: Redis, error: TransientError, at_once: int
) -> None:
    """However slowly the streak grows between late answers, it ends no row before it is judged."""
    breaker = Breaker(redis, KEY, look_s=0.01)
    under_way, row = Going(), Going()
    await asyncio.sleep(0.001)

    breaker.failed(row, error)
    breaker.heard(under_way)
    unjudged = row.attempts
    await asyncio.sleep(0.001)
    breaker.heard(Going())
    breaker.heard(Going())

    assert (unjudged, row.attempts) == (at_once, 1)


async def test_one_probe_at_a_time_over_all_workers_and_its_answer_lets_all_go_on(
    redis: Redis,
) -> None:
    first, second = Breaker(redis, KEY, look_s=0.01), Breaker(redis, KEY, look_s=0.01)
    entered: list[Going] = []

    async def enter(breaker: Breaker) -> None:
        trip = Going()
        await breaker.enter(trip, Stop())
        entered.append(trip)

    async with _serving(first, second), anyio.create_task_group() as rows:
        for _ in range(TRIP):
            first.failed(Going(), REFUSED)
        await until(lambda: first._news is None)
        await second.look()
        for breaker in (first, second) * 3:
            rows.start_soon(enter, breaker)
        await _probes_are_due(redis)
        with anyio.fail_after(10):
            await until(lambda: bool(entered))
        probes, owner = list(entered), first if first._probe else second
        owner.heard(probes[0])
        with anyio.fail_after(10):
            await until(lambda: len(entered) == 6)

    assert len(probes) == 1
    assert not await redis.exists(KEY)
    assert (first.is_open, second.is_open) == (False, False)


async def test_a_probe_that_fails_makes_the_next_one_wait_longer_and_costs_nothing(
    redis: Redis,
) -> None:
    breaker = Breaker(redis, KEY, look_s=0.01)
    waits_us = []
    async with _serving(breaker), anyio.create_task_group() as rows:
        for _ in range(TRIP):
            breaker.failed(Going(), REFUSED)
        row = Going()
        rows.start_soon(breaker.enter, row, Stop())
        for number in range(3):
            await _probes_are_due(redis)
            with anyio.fail_after(10):
                await until(lambda: breaker._probe is row)
            await asyncio.sleep(0)  # it has entered
            breaker.failed(row, REFUSED)
            rows.start_soon(breaker.enter, row, Stop())
            with anyio.fail_after(10):
                await until(lambda: breaker._news is None)
            seconds, micros = await redis.time()
            retry_us = int(await redis.hget(KEY, "retry_us") or 0)
            waits_us.append(retry_us - seconds * 1_000_000 - micros)
            assert row.probes == number + 1
        rows.cancel_scope.cancel()

    assert row.attempts == 0
    for wait_us, expected_s in zip(waits_us, (2, 4, 8), strict=True):
        assert expected_s * 0.8 < wait_us / 1e6 <= expected_s


async def test_a_probe_answered_500_costs_its_row_an_attempt(redis: Redis) -> None:
    """So that bad rows that are left alone with a living endpoint come to their end."""
    breaker = Breaker(redis, KEY, look_s=0.01)
    row = Going()
    async with _serving(breaker), anyio.create_task_group() as rows:
        for _ in range(TRIP):
            breaker.failed(Going(), BROKEN)
        rows.start_soon(breaker.enter, row, Stop())
        await _probes_are_due(redis)
        with anyio.fail_after(10):
            await until(lambda: breaker._probe is row)
        await asyncio.sleep(0)  # it has entered
        breaker.failed(row, BROKEN)

    assert (row.attempts, row.probes) == (1, 1)


async def test_a_row_that_waits_can_be_stopped(redis: Redis) -> None:
    breaker, stop = Breaker(redis, KEY, look_s=0.01), Stop()
    for _ in range(TRIP):
        breaker.failed(Going(), REFUSED)
    waiting = asyncio.ensure_future(breaker.enter(Going(), stop))
    await asyncio.sleep(0)

    stop.set(StopReason.SHUTDOWN)

    with pytest.raises(StoppedError):
        await waiting


async def test_a_row_that_is_stopped_already_is_no_probe(redis: Redis) -> None:
    """The probe would be nobody's, and the endpoint down for as long as one may take."""
    breaker, stop = Breaker(redis, KEY, look_s=0.01), Stop()
    stop.set(StopReason.PAUSED)
    for _ in range(TRIP):
        breaker.failed(Going(), REFUSED)
    with pytest.raises(StoppedError):
        await breaker.enter(Going(), stop)

    async with _serving(breaker):
        living = Going()
        waiting = asyncio.ensure_future(breaker.enter(living, Stop()))
        await _probes_are_due(redis)
        with anyio.fail_after(5):
            await waiting

    assert breaker._probe is living


async def test_a_new_worker_hears_that_the_endpoint_is_down(redis: Redis) -> None:
    async with anyio.create_task_group() as tasks:
        mine, theirs = Breakers(redis, tasks), Breakers(redis, tasks)
        breaker = mine.of("endpoint", "gpt")
        for _ in range(TRIP):
            breaker.failed(Going(), REFUSED)
        await until(lambda: breaker._news is None)
        other = theirs.of("endpoint", "gpt")
        before = other.is_open
        await theirs.look()

        assert (before, other.is_open) == (False, True)
        assert "connection refused" in other.waiting_for
        tasks.cancel_scope.cancel()


async def test_rows_outlive_a_dead_endpoint_with_all_their_attempts() -> None:
    """Twelve failures in a row of one row that may fail three times, as the endpoint was down."""
    trip = Trip(ScriptedClient(*[TransientError(error_info("refused"))] * 12), max_attempts=6)
    redis = trip.breaker._redis
    async with _serving(trip.breaker):
        running = asyncio.ensure_future(trip.run())
        while not running.done():
            if await redis.exists(KEY):
                await redis.hset(KEY, "retry_us", "0")
            await asyncio.sleep(0)
        (outcome,) = await running

    assert (outcome.verdict, outcome.attempts) == (Verdict.SUCCEEDED, 1)


async def test_the_time_that_a_row_waits_for_a_dead_endpoint_is_not_its_own() -> None:
    trip = Trip(ScriptedClient(), deadline_s=0.05)
    for _ in range(TRIP):
        trip.breaker.failed(Going(), REFUSED)
    running = asyncio.ensure_future(trip.run())
    with anyio.move_on_after(0.2):
        await asyncio.shield(running)
    trip.breaker._close()

    (outcome,) = await running

    assert outcome.verdict is Verdict.SUCCEEDED


async def test_a_row_that_kills_every_probe_ends_after_its_deadline() -> None:
    trip = Trip(
        ScriptedClient(*[TransientError(error_info("reset"))] * 99), max_attempts=6, deadline_s=0.05
    )
    redis = trip.breaker._redis
    async with _serving(trip.breaker):
        running = asyncio.ensure_future(trip.run(make_rows(1)))
        while not running.done():
            if await redis.exists(KEY):
                await redis.hset(KEY, "retry_us", "0")
            await asyncio.sleep(0.01)
        (outcome,) = await running

    assert outcome.verdict is Verdict.EXHAUSTED
    assert len(trip.sent) >= TRIP + 10


async def test_a_probe_that_no_limit_lets_pass_leaves_its_place_to_another_row() -> None:
    trip = Trip(ScriptedClient(), model=ScriptedModel())
    trip.limiter.largest = 100
    large, small = make_rows(1, tokens=101), make_rows(1, first=1)
    async with _serving(trip.breaker):
        for _ in range(TRIP):
            trip.breaker.failed(Going(), REFUSED)
        refused = asyncio.ensure_future(trip.run(large))
        await asyncio.sleep(0)
        answered = asyncio.ensure_future(trip.run(small))
        with anyio.fail_after(5):
            while not answered.done():
                if await trip.breaker._redis.exists(KEY):
                    await trip.breaker._redis.hset(KEY, "retry_us", "0")
                await asyncio.sleep(0)

    verdicts = [(await run)[0].verdict for run in (refused, answered)]
    assert verdicts == [Verdict.REJECTED, Verdict.SUCCEEDED]
    assert trip.sent == [["r1"]]


async def test_nothing_is_sent_while_outcomes_cannot_be_kept() -> None:
    trip = Trip(ScriptedClient())
    trip.gate._close(Duty.CHECKPOINT)
    running = asyncio.ensure_future(trip.run())
    await asyncio.sleep(0.02)
    before = list(trip.sent)

    with trip.gate.watched(Duty.CHECKPOINT):
        pass
    (outcome,) = await running

    assert before == []
    assert outcome.verdict is Verdict.SUCCEEDED


async def test_one_bad_row_among_good_ones_is_exhausted_and_stops_nobody() -> None:
    trip = Trip(ScriptedClient(*[transient()] * 3), max_attempts=3)

    (outcome,) = await trip.run()

    assert (outcome.verdict, outcome.attempts) == (Verdict.EXHAUSTED, 3)
    assert not trip.breaker.is_open
