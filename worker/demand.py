"""How many messages a worker takes: as many as its slots need, not as many as it has threads.

Celery's prefetch count is fixed; ours follows demand, so that batches spread over the workers that
can send them, and concurrency stays full across batch boundaries. Uses ``consumer.qos``, the
counter that Celery's own autoscaler and remote control use.
"""

from __future__ import annotations

from typing import Any, ClassVar

from celery import bootsteps

from worker.process import Process, ProcessThread

PERIOD_S = 0.02
"""Between looks. A slot's refill waits in the process meanwhile, so nothing is idle."""


class Demand(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
    """A consumer step of Celery's that keeps the prefetch count at what ``thread`` wants."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    thread: ClassVar[ProcessThread]

    def __init__(self, consumer: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:  # noqa: ANN401
        """Take one message at first; the process is not there yet to say more."""
        if consumer.qos is None or not _has_threads(consumer):
            return
        consumer.qos.set(1)
        if consumer.hub is not None:
            self._timer = consumer.hub.call_repeatedly(PERIOD_S, self._adjust, consumer)

    def stop(self, _consumer: Any) -> None:  # noqa: ANN401
        """End with the connection; the next ``start`` begins anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _adjust(self, consumer: Any) -> None:  # noqa: ANN401
        if consumer.task_consumer is None or consumer.qos is None:
            return
        held = len(consumer.task_consumer.channel.qos._delivered)  # noqa: SLF001 - not acknowledged; kombu has no public count
        # 0 would mean "no limit" to kombu.
        consumer.qos.value = max(1, held + missing_messages(self.thread.process, held))


def make_demand_step(thread: ProcessThread) -> type[Demand]:
    """The step for one process's demand, to be added to ``app.steps["consumer"]``."""
    return type("Demand", (Demand,), {"thread": thread})


def missing_messages(process: Process | None, held: int) -> int:
    """How many messages to take beyond those ``held`` (taken, not acknowledged)."""
    if process is None:
        return 0 if held else 1
    # Messages taken whose batches are not open yet count as on their way.
    on_their_way = max(0, held - len(process.open))
    return max(0, process.wanted_batches - on_their_way)


def _has_threads(consumer: Any) -> bool:  # noqa: ANN401
    """Whether all tasks run in this process; a prefork pool's children have loops of their own."""
    return type(consumer.pool).__module__ == "celery.concurrency.thread"
