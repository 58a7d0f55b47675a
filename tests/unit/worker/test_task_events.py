"""Events of tasks are published in groups, and none is lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery import Celery

from tests.unit.worker.test_demand import FakeTimer
from worker.task_events import GroupedEvents


class _Consumer:
    """Celery's consumer as far as the step sees it: a real dispatcher, its publications kept."""

    def __init__(self, *, has_hub: bool = True) -> None:
        app = Celery(broker="memory://")
        self.event_dispatcher: Any = app.events.Dispatcher(
            app.connection_for_write(), buffer_group=["task"]
        )
        self.event_dispatcher.on_send_buffered = self.event_dispatcher.flush
        self.event_dispatcher.producer = SimpleNamespace(publish=self._publish)
        self.published: list[list[str]] = []  # the types of the events in each
        self.timer = FakeTimer()
        self.hub: Any = SimpleNamespace(call_repeatedly=self._repeat) if has_hub else None
        self.turn: Any = None

    def send(self, *types: str) -> None:
        for name in types:
            self.event_dispatcher.send(name, uuid="1")

    def _publish(self, events: list[dict[str, Any]], **_: Any) -> None:
        self.published.append([event["type"] for event in events])

    def _repeat(self, _period_s: float, call: Any, consumer: Any) -> FakeTimer:
        self.turn = lambda: call(consumer)
        return self.timer


def test_events_wait_for_the_next_turn_and_are_one_publication() -> None:
    consumer = _Consumer()
    GroupedEvents(consumer).start(consumer)
    consumer.send("task-received", "task-started", "task-succeeded")
    before = list(consumer.published)

    consumer.turn()
    consumer.turn()

    assert before == []
    assert consumer.published == [["task-received", "task-started", "task-succeeded"]]


def test_the_last_events_are_published_at_the_end() -> None:
    """Tasks that end after Celery's loop has ended tell of it, too."""
    consumer = _Consumer()
    step = GroupedEvents(consumer)
    step.start(consumer)
    consumer.send("task-received", "task-started")

    step.stop(consumer)
    consumer.send("task-succeeded")

    assert consumer.timer.is_cancelled
    assert consumer.published == [["task-received", "task-started"], ["task-succeeded"]]


def test_without_an_event_loop_celery_publishes_by_itself() -> None:
    consumer = _Consumer(has_hub=False)
    step = GroupedEvents(consumer)
    step.start(consumer)

    consumer.send("task-received")
    step.stop(consumer)

    assert consumer.published == [["task-received"]]
