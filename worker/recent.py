"""What a process did for one job in the last seconds: rows, and how long their requests took.

Counted as outcomes arrive, told to the others with every beat (``worker.reports``).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from worker.histogram import place_of
from worker.jobs import Outcome, Verdict

WINDOW_S = 5.0
"""So far back the rate and the latencies of a running job look."""

_SLICE_S = 0.5
_SLICES = int(WINDOW_S / _SLICE_S)


@dataclass(slots=True)
class _Slice:
    number: int
    rows: int = 0
    latencies: Counter[int] = field(default_factory=Counter)


class Recent:
    """One job's last seconds in one process. Belongs to one event loop."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._began_s = now_s()
        self._slices: deque[_Slice] = deque()

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Count outcomes that are new; cancelled rows were not worked on."""
        number = self._drop_old()
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        now = self._slices[-1]
        for outcome in outcomes:
            now.rows += outcome.verdict is not Verdict.CANCELLED
            if outcome.latency_s is not None:
                now.latencies[place_of(outcome.latency_s)] += 1

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to tell any more."""
        self._drop_old()
        return not self._slices

    @property
    def rows_per_s(self) -> float:
        """Rows that got an outcome, over the window or the time since the job was met here."""
        first = self._drop_old() - _SLICES + 1
        span_s = self._now_s() - max(self._began_s, first * _SLICE_S)
        return sum(one.rows for one in self._slices) / max(span_s, _SLICE_S)

    @property
    def latencies(self) -> dict[int, int]:
        """How many requests took how long, by place (``worker.histogram``)."""
        self._drop_old()
        return dict(sum((one.latencies for one in self._slices), Counter[int]()))

    def _drop_old(self) -> int:
        number = int(self._now_s() / _SLICE_S)
        while self._slices and self._slices[0].number <= number - _SLICES:
            self._slices.popleft()
        return number
