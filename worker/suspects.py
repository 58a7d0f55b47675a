"""Batches that workers died of go one at a time, so that a deadly one takes no other with it.

A process that dies takes all its open batches along, and the ledger counts a delivery against each.
After some such deaths a batch is a *suspect*: it waits until it is the only suspect that is worked
on in this process, and while it waits its delivery does not count. So the one that kills runs up
to ``BATCH_MAX_DELIVERIES``, and the others get through.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from worker.stop import Stop, StoppedError, resolve

SUSPICIOUS = 3
"""Deliveries without progress. A second one is common (any worker may die); a third is not."""


def is_suspect(deliveries: int, *, max_deliveries: int) -> bool:
    """Whether a batch that is delivered so often shall be worked on alone."""
    return 1 < deliveries <= max_deliveries and deliveries >= min(SUSPICIOUS, max_deliveries)


class Suspects:
    """Whose turn it is. One per process; belongs to one event loop."""

    def __init__(self) -> None:
        self._is_busy = False
        self._waits: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def turn(self, stop: Stop) -> AsyncIterator[bool]:
        """Wait for the turn and hold it in the block.

        False, and no turn, where the batch was stopped while it waited.
        """
        try:
            await self._enter(stop)
        except StoppedError:
            yield False
            return
        try:
            yield True
        finally:
            self._is_busy = False
            for wait in self._waits:
                resolve(wait)

    async def _enter(self, stop: Stop) -> None:
        while self._is_busy:
            freed = asyncio.get_running_loop().create_future()
            self._waits.add(freed)
            try:
                await stop.wait(freed)
            finally:
                self._waits.discard(freed)
        self._is_busy = True
