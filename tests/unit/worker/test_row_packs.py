"""Rows that share a request, and what ends all of them: a stop, an endpoint that refuses."""

from __future__ import annotations

import pytest

from flavor.errors import JobError, RowError
from tests.unit.worker.fakes import ScriptedClient, answers
from tests.unit.worker.making import error_info, make_rows
from tests.unit.worker.trips import Trip, rejected, transient
from worker.jobs import Verdict
from worker.stop import StoppedError, StopReason


async def test_rows_of_one_pack_share_a_request() -> None:
    client = ScriptedClient()
    trip = Trip(client)

    outcomes = await trip.run(make_rows(5))

    assert [outcome.row_id for outcome in outcomes] == ["r0", "r1", "r2", "r3", "r4"]
    assert len(client.sent) == 1
    assert trip.limiter.settled == [(50, 75)]


@pytest.mark.parametrize(("size", "bad", "requests"), [(8, 5, 7), (8, 0, 7), (5, 4, 7), (2, 1, 3)])
async def test_a_refused_pack_is_halved_down_to_the_row_to_blame(
    size: int, bad: int, requests: int
) -> None:
    """Two requests for each halving, and the first one."""
    client = ScriptedClient(
        answer=lambda request: (
            rejected() if f"r{bad}" in request.body["rows"] else answers(request.rows)
        )
    )
    trip = Trip(client)

    outcomes = await trip.run(make_rows(size))

    assert [outcome.index for outcome in outcomes] == list(range(size))
    assert [o.index for o in outcomes if o.verdict is Verdict.REJECTED] == [bad]
    assert len(client.sent) == trip.way.tally.sent == requests


async def test_one_dead_row_of_a_pack_leaves_the_others_alive() -> None:
    replies = [*answers(1), RowError(error_info("filtered")), *answers(1)]
    trip = Trip(ScriptedClient(replies))

    outcomes = await trip.run(make_rows(3))

    assert [o.verdict for o in outcomes] == [
        Verdict.SUCCEEDED,
        Verdict.REJECTED,
        Verdict.SUCCEEDED,
    ]


async def test_an_endpoint_that_refuses_every_request_burns_no_row() -> None:
    client = ScriptedClient(JobError(error_info("bad key", status=401)))

    with pytest.raises(JobError, match="bad key"):
        await Trip(client).run()

    assert len(client.sent) == 1


async def test_a_stopped_row_is_not_sent() -> None:
    client = ScriptedClient()
    trip = Trip(client)
    trip.stop.set(StopReason.SHUTDOWN)

    with pytest.raises(StoppedError):
        await trip.run()

    assert client.sent == []


async def test_a_row_that_stops_between_attempts_has_no_outcome() -> None:
    trip = Trip(ScriptedClient(answer=lambda _: stop_and_fail()))

    def stop_and_fail() -> Exception:
        trip.stop.set(StopReason.PAUSED)
        return transient()

    with pytest.raises(StoppedError):
        await trip.run()

    assert trip.counted == (1, 0, 0)


async def test_a_row_above_the_whole_limit_is_rejected_unsent() -> None:
    client = ScriptedClient()
    trip = Trip(client)
    trip.limiter.largest = 9

    (outcome,) = await trip.run()

    assert (outcome.verdict, outcome.attempts, client.sent) == (Verdict.REJECTED, 0, [])


async def test_a_half_that_was_answered_is_kept_when_the_other_half_stops() -> None:
    """It is paid for: whoever stops the batch must not make it be paid for twice."""
    client = ScriptedClient(
        rejected(), answers(2), JobError(error_info("no quota", status=429, code="quota"))
    )
    trip = Trip(client)
    kept: list[int] = []
    trip.way.record = lambda outcomes: kept.extend(outcome.index for outcome in outcomes)

    with pytest.raises(JobError):
        await trip.run(make_rows(4))

    assert kept == [0, 1]
