"""How many messages a worker takes: as many as its slots need, not as many as it has threads.

Celery's prefetch count is fixed; ours follows demand, so that batches spread over the workers that
can send them, and concurrency stays full across batch boundaries. Uses ``consumer.qos``, the
counter that Celery's own autoscaler and remote control use.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from worker.process import ProcessThread

PERIOD_S = 0.02
"""Between looks. A slot's refill waits in the process meanwhile, so nothing is idle."""


def make_demand_step(thread: ProcessThread) -> type[bootsteps.StartStopStep]:
    """A consumer step of Celery's that keeps the prefetch count at what ``thread`` wants."""

    class Demand(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def __init__(self, consumer: Any, **_: Any) -> None:  # noqa: ANN401
            self._timer: Any = None

        def start(self, consumer: Any) -> None:  # noqa: ANN401
            """Take one message at first; the process is not there yet to say more."""
            if consumer.qos is None or not _has_threads(consumer):
                return
            consumer.qos.set(1)
            if consumer.hub is not None:
                self._timer = consumer.hub.call_repeatedly(PERIOD_S, self._adjust, consumer)

        def stop(self, consumer: Any) -> None:  # noqa: ANN401
            """End with the connection; the next ``start`` begins anew."""
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _adjust(self, consumer: Any) -> None:  # noqa: ANN401
            if consumer.task_consumer is None or consumer.qos is None:
                return
            held = len(consumer.task_consumer.channel.qos._delivered)  # noqa: SLF001 - kombu's count of unacknowledged messages
            # 0 would mean "no limit" to kombu.
            wanted = max(1, held + self._missing(held))
            if wanted != consumer.qos.value:
                consumer.qos.value = wanted

        def _missing(self, held: int) -> int:
            process = thread.process
            if process is None:
                return 0 if held else 1
            # Messages taken whose batches are not open yet count as on their way.
            on_their_way = max(0, held - len(process.open))
            return max(0, process.wanted_batches - on_their_way)

    return Demand


def _has_threads(consumer: Any) -> bool:  # noqa: ANN401
    """Whether all tasks run in this process; a prefork pool's children have loops of their own."""
    return type(consumer.pool).__module__ == "celery.concurrency.thread"
