"""How many requests are worked on at once: the others queue, and a queue has an end."""

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush

from producer.simulator.settings import SimulatorSettings


@dataclass(slots=True)
class Capacity:
    """When each of the places is free again, and when those who queue will begin."""

    _free_s: list[float] = field(default_factory=list)
    _begins_s: deque[float] = field(default_factory=deque)

    def wait_s(
        self, service_s: float, *, now_s: float, settings: SimulatorSettings
    ) -> float | None:
        """How long this request waits before it is worked on; None: the queue is full."""
        parallel = settings.parallel
        if parallel is None:
            return 0.0
        while self._begins_s and self._begins_s[0] <= now_s:
            self._begins_s.popleft()
        while self._free_s and (self._free_s[0] <= now_s or len(self._free_s) > parallel):
            heappop(self._free_s)
        begin_s = now_s
        if len(self._free_s) == parallel:
            if len(self._begins_s) >= settings.queue:
                return None
            begin_s = heappop(self._free_s)
            self._begins_s.append(begin_s)
        heappush(self._free_s, begin_s + service_s)
        return begin_s - now_s
