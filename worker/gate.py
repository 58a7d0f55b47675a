"""The gate before every request: closed while what comes back could not be kept.

An answer that Redis does not take is held in memory, and a lease that is not renewed may be given
to another worker. So while outcomes cannot be written, or leases not renewed, nothing new is sent;
what is in flight is awaited and held, so the slots bound how much that can be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from flavor.errors import StoreError
from flavor.types import StrEnum
from worker.stop import Stop, resolve

STALL_S = 0.5
"""A write that takes longer closes the gate before anybody knows whether it will fail."""


class Duty(StrEnum):
    """What must work for a request to be worth its money."""

    CHECKPOINT = "checkpoint"
    LEASE = "lease"


class Gate:
    """One per process; belongs to one event loop."""

    def __init__(self) -> None:
        self._neglected: set[Duty] = set()
        self._waits: set[asyncio.Future[None]] = set()

    @property
    def is_closed(self) -> bool:
        """Whether nothing may be sent right now."""
        return bool(self._neglected)

    async def wait(self, stop: Stop) -> None:
        """Wait until the gate is open. Raises ``StoppedError`` where the batch stops."""
        while self.is_closed:
            opened = asyncio.get_running_loop().create_future()
            self._waits.add(opened)
            try:
                await stop.wait(opened)
            finally:
                self._waits.discard(opened)

    @contextmanager
    def watched(self, duty: Duty, *, is_proof: bool = True) -> Iterator[None]:
        """Do a duty in the block. It closes the gate where it stalls or fails, else opens it.

        Without ``is_proof`` it opens nothing: what was done is less than the duty.
        """
        stalled = asyncio.get_running_loop().call_later(STALL_S, self._close, duty)
        try:
            yield
        except StoreError:
            self._close(duty)
            raise
        finally:
            stalled.cancel()
        if is_proof:
            self._open(duty)

    def _close(self, duty: Duty) -> None:
        self._neglected.add(duty)

    def _open(self, duty: Duty) -> None:
        self._neglected.discard(duty)
        if not self._neglected:
            for opened in self._waits:
                resolve(opened)
