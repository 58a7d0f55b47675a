"""Rows that wait while nobody knows yet whether an endpoint has limits: its answers tell."""

from __future__ import annotations

import asyncio

from worker.stop import Stop, resolve

FIRST = 8
"""Requests sent at once before any answer has told whether there are limits; then one in 0.1 s."""


class Discovery:
    """Whether one endpoint's limits are known. Belongs to one event loop."""

    def __init__(self, *, is_known: bool) -> None:
        self.is_known = is_known
        self._first = FIRST
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self, stop: Stop) -> None:
        """Let a few go at once, and the others one by one until ``end``.

        Raises:
            StoppedError: the batch stops; nothing may be sent.
        """
        if self._first > 0:
            self._first -= 1
            return
        loop = asyncio.get_running_loop()
        told = loop.create_future()
        self._waiting.append(told)
        timer = loop.call_later(0.1 * len(self._waiting), resolve, told)
        try:
            await stop.wait(told)
        finally:
            timer.cancel()
            if told in self._waiting:  # else an answer has let all of them go
                self._waiting.remove(told)

    def end(self) -> None:
        """The limits are known, or that there are none: nobody need wait for that."""
        self.is_known = True
        for told in self._waiting:
            resolve(told)
        self._waiting.clear()
