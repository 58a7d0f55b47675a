"""Which requests are traced, when, and that no batch waits for the thread that writes them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

from flavor.errors import TrackingError
from tests.unit.worker.fakes import ScriptedClient
from tests.unit.worker.making import make_spec
from tests.unit.worker.trips import Trip, rejected, transient
from worker.jobs import Outcome
from worker.runs import Runs
from worker.traces import QUEUE_SIZE, Traces, is_sampled
from worker.trip import Trip as Sent


class StuckRuns:
    """MLflow that answers when told, with an error."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def get(self, job_id: str) -> Any:
        self.go.wait(30)
        raise TrackingError("MLflow is away")


def test_the_sample_has_the_share_that_was_asked_for_and_is_always_the_same() -> None:
    chosen = [index for index in range(20_000) if is_sampled("job", index, share=0.01)]

    assert 140 <= len(chosen) <= 260
    assert chosen == [index for index in range(20_000) if is_sampled("job", index, share=0.01)]
    assert chosen != [index for index in range(20_000) if is_sampled("other", index, share=0.01)]


def test_all_or_nothing_are_shares_too() -> None:
    assert all(is_sampled("job", index, share=1.0) for index in range(1000))
    assert not any(is_sampled("job", index, share=0.0) for index in range(1000))


async def test_a_request_is_shown_once_with_its_last_answer_and_its_outcome() -> None:
    seen: list[tuple[Sent, Sequence[Outcome]]] = []
    trip = Trip(ScriptedClient(transient()))
    trip.way.trace = lambda sent, outcomes: seen.append((sent, outcomes))

    outcomes = await trip.run()

    ((sent, shown),) = seen
    assert shown == outcomes
    assert sent.response is not None
    assert sent.attempts == 2


async def test_a_refused_request_is_shown_too() -> None:
    seen: list[Sequence[Outcome]] = []
    trip = Trip(ScriptedClient(rejected()))
    trip.way.trace = lambda _, outcomes: seen.append(outcomes)

    outcomes = await trip.run()

    assert seen == [outcomes]


async def test_requests_beyond_what_the_thread_can_write_are_dropped_and_counted() -> None:
    runs = StuckRuns()
    traces = Traces(cast("Runs", runs))
    trip = Trip(ScriptedClient())
    trip.way.trace = traces.of(make_spec(trace=1.0))

    for _ in range(QUEUE_SIZE + 20):
        await trip.run()

    assert 19 <= traces.dropped <= 20  # the thread may hold one already
    runs.go.set()
    traces.close()
    assert traces.dropped == QUEUE_SIZE + 20  # MLflow was away for every one of them
