"""The way of a row: what goes again, what does not, and what the outcome says of it."""

from __future__ import annotations

import asyncio
import math

import pytest

from flavor.errors import RowError, TransientError
from flavor.prices import Price
from flavor.types import Request, Response, Usage
from tests.unit.worker.fakes import ScriptedClient, ScriptedModel, SilentClient, answers
from tests.unit.worker.making import USAGE, error_info
from tests.unit.worker.trips import Trip, rejected, throttled, transient
from worker.expectation import Expected
from worker.jobs import Outcome, Verdict
from worker.stop import Stop

PRICE = Price(input_usd_per_token=1e-6, output_usd_per_token=2e-6, cached_usd_per_token=5e-7)


async def test_an_answer_becomes_an_outcome_with_its_usage_and_cost() -> None:
    trip = Trip(ScriptedClient(), price=PRICE)

    (outcome,) = await trip.run()

    assert outcome == Outcome(
        row_id="r0",
        index=0,
        verdict=Verdict.SUCCEEDED,
        output="fine",
        finish_reason="stop",
        usage=USAGE,
        cost_usd=outcome.cost_usd,
        attempts=1,
        latency_s=0.25,
        request_id="req-1",
        response_model="gpt-x",
    )
    assert math.isclose(outcome.cost_usd or 0, (8 * 1 + 2 * 0.5 + 5 * 2) / 1e6)
    assert trip.counted == (1, 0, 0)
    assert trip.limiter.reserved == [10]
    assert trip.limiter.settled == [(10, 15)]


async def test_unknown_usage_costs_nothing_known_and_settles_nothing() -> None:
    trip = Trip(ScriptedClient(answers(1, usage=None)), price=PRICE)

    (outcome,) = await trip.run()

    assert (outcome.usage, outcome.cost_usd) == (None, None)
    assert trip.limiter.settled == []


async def test_a_passing_error_goes_again_and_counts_as_an_attempt() -> None:
    client = ScriptedClient(transient(), transient())
    trip = Trip(client)

    (outcome,) = await trip.run()

    assert outcome.verdict is Verdict.SUCCEEDED
    assert outcome.attempts == 3
    assert trip.counted == (3, 2, 0)
    assert trip.limiter.reserved == [10, 10, 10]


async def test_pauses_between_attempts_grow_and_stay_bounded() -> None:
    trip = Trip(ScriptedClient(*[transient()] * 12), max_attempts=12)

    await trip.run()

    for number, slept_s in enumerate(trip.stop.slept):
        least_s = min(60.0, 0.5 * 2**number)
        assert least_s <= slept_s <= min(60.0, least_s + 0.5)
    assert len(trip.stop.slept) == 11


async def test_the_servers_word_on_when_to_come_back_is_obeyed() -> None:
    """Also above two minutes, which the SDK ignores."""
    trip = Trip(ScriptedClient(transient(retry_after_s=0.0), transient(retry_after_s=150.0)))

    await trip.run()

    assert trip.stop.slept == [0.0, 150.0]


async def test_a_429_is_no_attempt() -> None:
    trip = Trip(ScriptedClient(*[throttled(2.0)] * 20), max_attempts=1)

    (outcome,) = await trip.run()

    assert outcome.verdict is Verdict.SUCCEEDED
    assert outcome.attempts == 1
    assert trip.counted == (21, 20, 20)


async def test_a_429_holds_everybody_back_for_as_long_as_the_server_says() -> None:
    trip = Trip(ScriptedClient(throttled(7.5), throttled(0.0)))

    await trip.run()

    assert trip.limiter.pauses == [7.5, 0.0]
    assert trip.limiter.settled == [(10, 15)]  # refused requests stay spent: the API counts them


async def test_429s_without_a_word_hold_everybody_back_for_longer_each_time() -> None:
    trip = Trip(ScriptedClient(*[throttled()] * 8))

    await trip.run()

    assert trip.limiter.pauses == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_row_whose_attempts_are_spent_is_exhausted_with_its_last_error() -> None:
    client = ScriptedClient(transient("first"), throttled(0.0), *[transient("last")] * 5)
    trip = Trip(client, max_attempts=3)

    (outcome,) = await trip.run()

    assert outcome.verdict is Verdict.EXHAUSTED
    assert outcome.attempts == 3
    assert outcome.error is not None
    assert (outcome.error.message, outcome.error.status) == ("last", 500)
    assert trip.counted == (4, 3, 1)


async def test_requests_without_an_answer_are_told_from_the_others() -> None:
    """They may have been paid for: nobody knows."""
    silence = TransientError(error_info("connection reset"))
    trip = Trip(ScriptedClient(silence, transient(), throttled(0.0)))

    await trip.run()

    assert (trip.way.tally.sent, trip.way.tally.answered) == (4, 3)


@pytest.mark.parametrize(
    ("error", "in_doubt"),
    [
        (TransientError(error_info("connection reset")), 1),
        (TransientError(error_info("not JSON", status=200)), 1),
        (TransientError(error_info("gateway timeout", status=504)), 1),
        (TransientError(error_info("connection refused"), is_unsent=True), 0),
        (transient(), 0),
        (TransientError(error_info("overloaded", status=503)), 0),
        (throttled(0.0), 0),
        (rejected(), 0),
    ],
)
async def test_a_row_is_in_doubt_where_nobody_says_that_its_request_was_not_billed(
    error: Exception, in_doubt: int
) -> None:
    trip = Trip(ScriptedClient(error))

    await trip.run()

    assert trip.way.tally.in_doubt == in_doubt


async def test_an_answer_that_is_of_no_use_or_comes_too_late_may_be_paid_for() -> None:
    useless = Trip(ScriptedClient(), model=ScriptedModel(broken_answers=2), max_attempts=3)
    late = Trip(SilentClient(), deadline_s=0.01)

    await useless.run()
    await late.run()

    assert (useless.way.tally.in_doubt, late.way.tally.in_doubt) == (2, 1)


async def test_an_answer_of_no_use_is_an_attempt() -> None:
    trip = Trip(ScriptedClient(), model=ScriptedModel(broken_answers=2), max_attempts=3)

    (outcome,) = await trip.run()

    assert (outcome.verdict, outcome.attempts) == (Verdict.SUCCEEDED, 3)


async def test_a_deadline_ends_a_row_that_nobody_answers() -> None:
    trip = Trip(SilentClient(), deadline_s=0.01)

    (outcome,) = await trip.run()

    assert outcome.verdict is Verdict.EXHAUSTED
    assert outcome.error is not None
    assert outcome.error.type == "DeadlineExceeded"
    assert "within 0.01 s; last: it was still waiting" in outcome.error.message


async def test_the_time_that_a_row_waits_for_its_first_turn_is_not_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At a low limit hundreds of rows queue: none may end for that, before it was ever sent."""
    trip = Trip(ScriptedClient(), deadline_s=0.02)
    reserve = trip.limiter.reserve

    async def slowly(request: Request, stop: Stop) -> Expected:
        await asyncio.sleep(0.06)
        return await reserve(request, stop)

    monkeypatch.setattr(trip.limiter, "reserve", slowly)
    (outcome,) = await trip.run()

    assert outcome.verdict is Verdict.SUCCEEDED


@pytest.mark.parametrize("timeout_s", [0.005, 1])
async def test_a_deadline_bounds_429s_that_never_end_and_names_them(timeout_s: float) -> None:
    client = ScriptedClient(answer=lambda _: throttled(0.0))
    trip = Trip(client, deadline_s=0.02, timeout_s=timeout_s)
    trip.way.stop = Stop()  # real sleeps let time pass

    (outcome,) = await trip.run()

    assert outcome.error is not None
    assert outcome.error.type == "DeadlineExceeded"
    assert "slow down" in outcome.error.message
    assert outcome.attempts == 0


class _SlowlyThrottled(ScriptedClient):
    """Refuses every request, after a while."""

    async def send(self, request: Request) -> Response:
        await asyncio.sleep(0.03)
        self.script = [throttled(0.0)]
        return await super().send(request)


async def test_a_deadline_runs_from_the_first_attempt_on_not_from_the_second() -> None:
    trip = Trip(_SlowlyThrottled(), deadline_s=0.05, timeout_s=0.02)
    trip.way.stop = Stop()

    (outcome,) = await trip.run()

    assert outcome.error is not None
    assert outcome.error.type == "DeadlineExceeded"
    assert trip.way.tally.sent <= 2


async def test_a_refused_row_is_rejected_and_not_sent_again() -> None:
    client = ScriptedClient(rejected())
    trip = Trip(client)

    (outcome,) = await trip.run()

    assert outcome.verdict is Verdict.REJECTED
    assert (outcome.attempts, outcome.request_id) == (1, "req-9")
    assert outcome.error == error_info("bad input", status=400, code="invalid", request_id="req-9")
    assert client.sent == [["r0"]]


async def test_a_row_that_cannot_be_rendered_is_rejected_unsent() -> None:
    model, client = ScriptedModel(), ScriptedClient()
    model.refused["r0"] = rejected()
    trip = Trip(client, model=model)

    (outcome,) = await trip.run()

    assert (outcome.verdict, outcome.attempts) == (Verdict.REJECTED, 0)
    assert client.sent == []


async def test_a_filtered_answer_is_dead_but_billed() -> None:
    usage = Usage(prompt_tokens=3, completion_tokens=1, total_tokens=4)
    filtered = RowError(error_info("filtered"), usage=usage)
    trip = Trip(ScriptedClient([filtered]), price=PRICE)

    (outcome,) = await trip.run()

    assert outcome.verdict is Verdict.REJECTED
    assert outcome.usage == usage
    assert math.isclose(outcome.cost_usd or 0, 5e-6)
    assert trip.limiter.settled == [(10, 4)]
