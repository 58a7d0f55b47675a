"""How many requests may be in flight at once to one endpoint, over all workers.

``BATCH_MAX_CONCURRENCY`` bounds it. Where no limits per minute are set or told by the endpoint
(vLLM, Ollama), it is adapted to what the endpoint bears. Each process has a share of it and passes
through by itself; the arithmetic is in ``lua/concurrency.lua``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from anyio.abc import TaskGroup
from redis.asyncio import Redis

from flavor.errors import RequestError, StoreError, ThrottledError, TransientError
from worker.redis_client import run_script
from worker.stop import Stop, resolve

PERIOD_S = 0.1
"""Between looks at the shared state while requests are in flight."""

SHARE_S = 15.0
"""After so long without a look a process counts as dead, and its share is the others'."""

FIRST = 32
"""In flight at first, where the endpoint shall tell how many it bears; then twice as many, and so
on. Small for a server with a GPU, and queued by one without."""


class Concurrency:
    """One endpoint's permits, as one process sees them. Belongs to one event loop.

    After ``enter`` each request ends with ``leave``.
    """

    def __init__(
        self,
        redis: Redis,
        concurrency_keys: tuple[str, str],
        tasks: TaskGroup,
        *,
        name: str,
        most: int | None = None,
    ) -> None:
        self.limit = 0  # of the fleet, as last told
        self.in_flight = 0
        self._redis = redis
        self._keys = concurrency_keys
        self._tasks = tasks
        self._name = name
        self._most = most
        self._quota = 0
        self._is_adaptive = False
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._is_serving = False
        self._answers = self._overloads = 0
        self._latency_s = 0.0

    @property
    def waiting_for(self) -> str:
        """In words, whether requests wait for others to be answered; empty when none do."""
        return f"concurrency ({self.limit} at once)" if self._waiters and self.limit else ""

    async def enter(self, stop: Stop, *, is_paced: bool) -> None:
        """Wait until one more may be in flight; without a bound for one that limits pace.

        Raises:
            StoppedError: the batch stops; nothing may be sent.
        """
        if is_paced and self._most is None:
            self.in_flight += 1
            return
        self._is_adaptive = not is_paced
        if not self._is_serving:
            self._is_serving = True
            self._tasks.start_soon(self._run)
        if self._waiters or self.in_flight >= self._quota:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await stop.wait(waiter)
            except BaseException:
                if waiter.done() and not waiter.cancelled() and not waiter.exception():
                    self.leave()
                raise
        else:
            self.in_flight += 1

    def leave(self, *, latency_s: float | None = None, error: RequestError | None = None) -> None:
        """A request ended: answered after ``latency_s``, with an error, or without being sent."""
        self.in_flight -= 1
        if latency_s is not None:
            self._answers += 1
            self._latency_s += latency_s
        elif error is not None:
            is_refused = is_overload(error, is_paced=not self._is_adaptive)
            self._overloads += is_refused
            self._quota -= is_refused  # until the next look: else the next one is refused as fast
        self._let_in()

    def _let_in(self) -> None:
        while self._waiters and self.in_flight < self._quota:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.in_flight += 1
                resolve(waiter)

    async def _run(self) -> None:
        """Look as long as requests are in flight or wait."""
        try:
            while True:
                self._waiters = deque(w for w in self._waiters if not w.done())
                demand = self.in_flight + len(self._waiters)
                is_told = False
                with suppress(StoreError):  # the last share stands: the others cannot see it change
                    await self._exchange(demand)
                    is_told = True
                if is_told and not (demand or self._waiters or self.in_flight):
                    return
                await asyncio.sleep(PERIOD_S)
        finally:
            self._is_serving = False

    async def _exchange(self, demand: int) -> None:
        answers, self._answers = self._answers, 0
        latency_s, self._latency_s = self._latency_s, 0.0
        overloads, self._overloads = self._overloads, 0
        reply = await run_script(
            self._redis,
            "concurrency",
            keys=self._keys,
            args=[
                self._name,
                int(SHARE_S * 1e6),
                self.in_flight,
                demand,
                self._most or 0,
                int(self._is_adaptive),
                answers,
                int(latency_s * 1e6),
                overloads,
                FIRST,
            ],
        )
        self._quota, self.limit = int(reply[0]), int(reply[1])
        self._let_in()


def is_overload(error: RequestError, *, is_paced: bool) -> bool:
    """Whether an error says that the endpoint has too much to do.

    A 429 with a time is a limit's, and the limiter's business; but where no limit is known that
    could pace the requests, fewer at once are all that keeps them below it.
    """
    if isinstance(error, ThrottledError):
        return error.retry_after_s is None or not is_paced
    return isinstance(error, TransientError) and error.is_outage
