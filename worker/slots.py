"""The request slots of a process: a fixed number of tasks that serve the rows of all open batches.

Jobs take turns: a large one that came first does not keep a small one waiting for its whole queue,
and one whose rows wait long for a limit does not take all slots from one whose rows do not.

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
    """At most ``size`` pieces of work at a time: of the job with the fewest under way, and among
    equals of each in turn; of one job, first come, first served.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.busy = 0
        self.waiting = 0  # pieces of work that no slot has taken yet
        self._queues: dict[str, deque[Work]] = {}  # by job; the first is the next one's turn
        self._under_way: dict[str, int] = {}  # by job
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
            job_id, work = self._take()
            self.busy += 1
            self._under_way[job_id] = self._under_way.get(job_id, 0) + 1
            try:
                await work()
            finally:
                del work  # it knows its batch: an idle slot would keep all of the batch's outcomes
                self.busy -= 1
                self._leave(job_id)

    def _take(self) -> tuple[str, Work]:
        job_id = next(iter(self._queues))
        if len(self._queues) > 1:
            job_id = min(self._queues, key=lambda job_id: self._under_way.get(job_id, 0))
        queue = self._queues.pop(job_id)
        work = queue.popleft()
        if queue:
            self._queues[job_id] = queue  # at the end: the other jobs come first
        self.waiting -= 1
        return job_id, work

    def _leave(self, job_id: str) -> None:
        left = self._under_way[job_id] - 1
        if left:
            self._under_way[job_id] = left
        else:
            del self._under_way[job_id]
