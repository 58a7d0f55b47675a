"""The request slots of a process: a fixed number of tasks that serve the rows of all open batches.

Jobs take turns: a large one that came first does not keep a small one waiting for its whole queue.

A batch puts its requests here and waits; a slot takes the next one, of whatever batch. So a slow
row at the end of one batch keeps one slot busy, not the others. A slot outlives its requests: no
task is made per row.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

Work = Callable[[], Awaitable[None]]


class Slots:
    """At most ``size`` pieces of work at a time: of each job in turn, first come, first served."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.busy = 0
        self.waiting = 0  # pieces of work that no slot has taken yet
        self._queues: dict[str, deque[Work]] = {}  # by job; the first is the next one's turn
        self._idle: deque[asyncio.Future[None]] = deque()

    def put(self, work: Work, *, job_id: str) -> None:
        """Hand over work. It must not raise: a slot has no way to know whose error it was."""
        self._queues.setdefault(job_id, deque()).append(work)
        self.waiting += 1
        while self._idle:
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)
                break

    async def serve(self) -> None:
        """One slot: take work for ever. Start ``size`` of these."""
        while True:
            while not self._queues:
                idle = asyncio.get_running_loop().create_future()
                self._idle.append(idle)
                await idle
            work = self._take()
            self.busy += 1
            try:
                await work()
            finally:
                self.busy -= 1

    def _take(self) -> Work:
        job_id = next(iter(self._queues))
        queue = self._queues.pop(job_id)
        work = queue.popleft()
        if queue:
            self._queues[job_id] = queue  # at the end: the other jobs come first
        self.waiting -= 1
        return work
