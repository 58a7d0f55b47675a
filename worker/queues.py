"""The rows of one process that wait for a turn on a limit, by job, and those that sleep until it.

Plain bookkeeping; when to ask and what for is decided in ``worker.limiter``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from worker.spare import Spare
from worker.stop import resolve

_GROUP = 512
"""Most rows that one call asks for, over all jobs."""


@dataclass(slots=True, eq=False)
class Waiter:
    """One row's request: the tokens to reserve, and what is resolved at its turn."""

    tokens: int
    turn: asyncio.Future[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What one job asks for in one call: the estimates of its first requests, in order."""

    job_id: str
    tokens: Sequence[int]


@dataclass(slots=True)
class Queues:
    """Who waits, and who sleeps until a turn that was given. Belongs to one event loop."""

    _waiting: dict[str, deque[Waiter]] = field(default_factory=dict)
    _asleep: dict[Waiter, tuple[str, asyncio.TimerHandle]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    def add(self, job_id: str, waiter: Waiter) -> None:
        """Put a row at the end of its job's queue."""
        self._waiting.setdefault(job_id, deque()).append(waiter)

    def asking(self, others: Iterable[str] = ()) -> list[Asking]:
        """The first rows of each job that waits, and none of ``others``, whose rows have gone.

        Forgets those that have given up.
        """
        waiting = {
            job_id: deque(waiter for waiter in queue if not waiter.turn.done())
            for job_id, queue in self._waiting.items()
        }
        self._waiting = {job_id: queue for job_id, queue in waiting.items() if queue}
        most = _GROUP // max(1, len(self._waiting))
        return [
            Asking(job_id=job_id, tokens=[waiter.tokens for waiter in islice(queue, most)])
            for job_id, queue in {**dict.fromkeys(others, ()), **self._waiting}.items()
        ]

    def let_go(self, spare: Spare) -> set[str]:
        """Let the first rows go whose turns are spare; their jobs."""
        now_s = asyncio.get_running_loop().time()
        jobs = set()
        for job_id, queue in self._waiting.items():
            while queue and (queue[0].turn.done() or spare.take(queue[0].tokens, now_s=now_s)):
                resolve(queue.popleft().turn)
                jobs.add(job_id)
        return jobs

    def give(self, job_ids: Sequence[str], turns: Sequence[int]) -> None:
        """Let rows sleep until their turns: pairs of a job's number, from 1, and microseconds."""
        loop = asyncio.get_running_loop()
        for number, turn_us in zip(turns[::2], turns[1::2], strict=True):
            job_id = job_ids[int(number) - 1]
            waiter = self._waiting[job_id].popleft()
            timer = loop.call_later(int(turn_us) / 1e6, self._wake, waiter)
            self._asleep[waiter] = (job_id, timer)

    def void(self) -> None:
        """Take back the turns that have not come yet: their rows wait again, before the others."""
        for waiter, (job_id, timer) in reversed(self._asleep.items()):
            timer.cancel()
            self._waiting.setdefault(job_id, deque()).appendleft(waiter)
        self._asleep.clear()

    def refuse(self, *, above: int, error: Callable[[int, int], Exception]) -> None:
        """End the waits of rows that no minute's limit would let pass."""
        for queue in self._waiting.values():
            for waiter in queue:
                if waiter.tokens > above and not waiter.turn.done():
                    waiter.turn.set_exception(error(waiter.tokens, above))

    def _wake(self, waiter: Waiter) -> None:
        del self._asleep[waiter]
        resolve(waiter.turn)
