"""A server that works on so many requests at once, and lets others queue."""

from producer.simulator.capacity import Capacity
from producer.simulator.settings import SimulatorSettings


def test_those_beyond_the_places_wait_for_the_first_free_one() -> None:
    capacity = Capacity()

    def ask(service_s: float, now_s: float) -> float | None:
        return capacity.wait_s(service_s, now_s=now_s, settings=SimulatorSettings(parallel=2))

    assert [ask(1.0, 0.0), ask(3.0, 0.0), ask(1.0, 0.5), ask(1.0, 0.5)] == [0, 0, 0.5, 1.5]
    assert ask(1.0, 10.0) == 0


def test_a_full_queue_refuses_until_somebody_begins() -> None:
    capacity, settings = Capacity(), SimulatorSettings(parallel=1, queue=1)

    def ask(now_s: float) -> float | None:
        return capacity.wait_s(1.0, now_s=now_s, settings=settings)

    assert [ask(0.0), ask(0.0), ask(0.0), ask(1.5)] == [0, 1.0, None, 0.5]
