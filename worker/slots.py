"""The request slots of a process: a fixed number of tasks that serve the rows of all open batches.

A batch puts its requests here and waits; a slot takes the next one, of whatever batch. So a slow
row at the end of one batch keeps one slot busy, not the others. A slot outlives its requests: no
task is made per row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Work = Callable[[], Awaitable[None]]


class Slots:
    """At most ``size`` pieces of work at a time, first come, first served."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.busy = 0
        self._queue: asyncio.Queue[Work] = asyncio.Queue()

    @property
    def waiting(self) -> int:
        """Pieces of work that no slot has taken yet."""
        return self._queue.qsize()

    def put(self, work: Work) -> None:
        """Hand over work. It must not raise: a slot has no way to know whose error it was."""
        self._queue.put_nowait(work)

    async def serve(self) -> None:
        """One slot: take work for ever. Start ``size`` of these."""
        while True:
            work = await self._queue.get()
            self.busy += 1
            try:
                await work()
            finally:
                self.busy -= 1
