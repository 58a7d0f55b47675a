"""How a batch's rows learn that they shall stop: at once where they wait, after it where they send.

Rows in flight are never cancelled, since their answers are paid for; rows that sleep, or wait for
their turn, end with ``StoppedError``.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from flavor.errors import BatchError
from flavor.types import StrEnum

_T = TypeVar("_T")


class StopReason(StrEnum):
    """Why a batch stops before its last row."""

    LEASE_LOST = "lease_lost"
    SHUTDOWN = "shutdown"
    PAUSED = "paused"
    CANCELLED = "cancelled"


class StoppedError(BatchError):
    """The row shall not be sent (again); it has no outcome from this worker."""


class Stop:
    """One batch's stop signal. Set once; the first reason stays. Belongs to one event loop."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self._waits: set[asyncio.Future[None]] = set()

    def set(self, reason: StopReason) -> None:
        """Stop what waits, and whatever asks from now on."""
        if self.reason is None:
            self.reason = reason
        for future in self._waits:
            if not future.done():
                future.set_exception(StoppedError(self.reason))

    def check(self) -> None:
        """Raise ``StoppedError`` if the batch shall stop."""
        if self.reason is not None:
            raise StoppedError(self.reason)

    async def wait(self, future: asyncio.Future[None]) -> None:
        """Wait for ``future`` or for the stop, which ends it with ``StoppedError``."""
        if self.reason is not None:
            future.cancel()  # what was to resolve it must not give a turn to nobody
        self.check()
        self._waits.add(future)
        try:
            await future
        finally:
            self._waits.discard(future)

    async def sleep(self, delay_s: float) -> None:
        """Sleep, or end early with ``StoppedError``."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        timer = loop.call_later(delay_s, resolve, future)
        try:
            await self.wait(future)
        finally:
            timer.cancel()


def resolve(future: asyncio.Future[None]) -> None:
    """End a wait, unless it has ended already."""
    if not future.done():
        future.set_result(None)
