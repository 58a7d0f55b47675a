"""How many messages a worker takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from worker.demand import make_demand_step, missing_messages
from worker.process import Process, ProcessThread


@dataclass
class FakeProcess:
    """A process that wants so many batches and has so many open."""

    wanted_batches: int = 0
    open: dict[tuple[str, str], object] = field(default_factory=dict)

    def opened(self, count: int) -> Process:
        self.open = {("job1", str(number)): object() for number in range(count)}
        return cast("Process", self)


class FakeTimer:
    """What a hub hands back for a repeated call."""

    is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeConsumer:
    """Celery's consumer as far as the step sees it. ``held`` messages are not acknowledged."""

    def __init__(self, *, pool_module: str = "celery.concurrency.thread", held: int = 0) -> None:
        self.pool = type("TaskPool", (), {"__module__": pool_module})()
        self.qos: Any = SimpleNamespace(value=8, set=self._set_prefetch)
        self.timer = FakeTimer()
        self.repeated: Callable[[Any], None] | None = None
        self.hub = SimpleNamespace(call_repeatedly=self._call_repeatedly)
        channel = SimpleNamespace(qos=SimpleNamespace(_delivered=dict.fromkeys(range(held))))
        self.task_consumer: Any = SimpleNamespace(channel=channel)

    def _set_prefetch(self, value: int) -> None:
        self.qos.value = value

    def _call_repeatedly(
        self, _period_s: float, call: Callable[[Any], None], _consumer: Any
    ) -> FakeTimer:
        self.repeated = call
        return self.timer

    def look(self) -> int:
        assert self.repeated is not None
        self.repeated(self)
        return int(self.qos.value)


def _step(process: Process | None) -> Any:
    thread = cast("ProcessThread", SimpleNamespace(process=process))
    return make_demand_step(thread)(SimpleNamespace())


@pytest.mark.parametrize(
    ("wanted", "opened", "held", "missing"),
    [
        (3, 0, 0, 3),
        (3, 2, 2, 3),
        (3, 2, 4, 1),  # two messages are taken and not yet open
        (3, 2, 9, 0),
        (0, 2, 2, 0),
        (2, 5, 4, 2),  # acknowledged already, about to be closed
    ],
)
def test_what_is_on_its_way_is_not_asked_for_again(
    wanted: int, opened: int, held: int, missing: int
) -> None:
    assert missing_messages(FakeProcess(wanted).opened(opened), held) == missing


@pytest.mark.parametrize(("held", "missing"), [(0, 1), (1, 0), (5, 0)])
def test_a_process_that_has_not_started_takes_one_message(held: int, missing: int) -> None:
    assert missing_messages(None, held) == missing


def test_prefetching_follows_the_demand() -> None:
    consumer = FakeConsumer(held=2)
    fake = FakeProcess(wanted_batches=3)
    step = _step(fake.opened(2))

    step.start(consumer)
    first = consumer.qos.value
    more = consumer.look()
    fake.wanted_batches = 0

    assert (first, more, consumer.look()) == (1, 5, 2)


def test_prefetching_is_never_unlimited() -> None:
    """0 would mean that to kombu."""
    consumer = FakeConsumer(held=0)
    step = _step(FakeProcess(wanted_batches=0).opened(0))

    step.start(consumer)

    assert consumer.look() == 1


def test_a_lost_connection_is_no_error_and_its_end_stops_the_looks() -> None:
    consumer = FakeConsumer()
    step = _step(FakeProcess(wanted_batches=5).opened(0))
    step.start(consumer)
    consumer.task_consumer = None

    looked = consumer.look()
    step.stop(consumer)
    step.stop(consumer)

    assert looked == 1
    assert consumer.timer.is_cancelled


def test_other_pools_keep_celerys_own_prefetching() -> None:
    consumer = FakeConsumer(pool_module="celery.concurrency.prefork")

    _step(None).start(consumer)

    assert (consumer.qos.value, consumer.repeated) == (8, None)
