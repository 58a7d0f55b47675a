"""A job's cap on tokens and money, held by all workers together.

A request takes what it is expected to spend out of the cap before it is sent, and what it did
spend stays taken until its outcome is written or counted off: then the job's counts have it. So the
cap is overshot by no more than the error of the estimates of the requests in flight. The arithmetic
is in ``lua/allow.lua``; all that a process asks and tells goes into one call a few times a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from anyio import move_on_after
from anyio.abc import TaskGroup
from redis.asyncio import Redis

from flavor.errors import CapReachedError, ErrorInfo, StoreError
from worker import keys
from worker.jobs import PICO, Outcome
from worker.redis_client import run_script, text
from worker.stop import Stop, resolve

GROUP_S = 0.02
"""Between calls: requests that become ready in this time share the next one."""

LOOK_S = 0.5
"""Between calls while something is held; what a process says of itself is no older."""

HOLD_S = 15.0
"""After so long without a call a process counts as dead, and holds nothing."""

AGAIN_S = 0.1
"""Between calls while others hold what is left of the cap."""

KEPT = 256
"""Jobs whose allowance a process remembers."""

_GROUP = 512

CAP_REACHED = "the cap is reached"
"""How the reason of a job that was paused for its cap begins."""


@dataclass(frozen=True, slots=True)
class Spend:
    """Tokens, and money in whole 10^-12 dollars."""

    tokens: int = 0
    pico: int = 0

    def __add__(self, other: Spend) -> Spend:
        return Spend(self.tokens + other.tokens, self.pico + other.pico)

    def minus(self, other: Spend) -> Spend:
        """The difference, at least 0 in each."""
        return Spend(max(0, self.tokens - other.tokens), max(0, self.pico - other.pico))

    def covers(self, other: Spend) -> bool:
        """Whether there is enough of both."""
        return self.tokens >= other.tokens and self.pico >= other.pico


@dataclass(slots=True, eq=False)
class _Waiter:
    spend: Spend
    turn: asyncio.Future[None]


class Allowance:
    """What the requests of one process may spend of a job's cap. Belongs to one event loop.

    After ``take`` each request ends with ``give_back`` or ``settle``, and what was settled with
    ``written``.
    """

    def __init__(self, redis: Redis, job_id: str, tasks: TaskGroup, *, name: str) -> None:
        self._redis = redis
        self._keys = [keys.job(job_id), keys.counts(job_id), keys.held(job_id)]
        self._job_id = job_id
        self._tasks = tasks
        self._name = name
        self._waiters: deque[_Waiter] = deque()
        self._wake = asyncio.Event()
        self._is_serving = False
        self._spare = Spend()
        self._held = Spend()
        self._unwritten = Spend()  # the part of it that was spent
        self._taken = Spend()  # since the last call
        self._is_short = False

    @property
    def waiting_for(self) -> str:
        """In words, whether requests wait for what others hold of the cap."""
        return "the cap" if self._is_short and self._waiters else ""

    async def take(self, spend: Spend, stop: Stop) -> None:
        """Wait until the cap has room for a request.

        Raises:
            CapReachedError: it has none, whatever the requests in flight will give back.
            StoppedError: the batch stops; nothing may be sent.
        """
        self._serve()
        self._taken += spend
        if not self._waiters and self._spare.covers(spend):
            self._spare = self._spare.minus(spend)
            self._held += spend
            return
        waiter = _Waiter(spend, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._wake.set()
        try:
            await stop.wait(waiter.turn)
        except BaseException:
            if waiter.turn.done() and not waiter.turn.cancelled() and not waiter.turn.exception():
                self.give_back(spend)
            raise

    def give_back(self, spend: Spend) -> None:
        """Nothing was spent. Takes effect with the next call."""
        self._held = self._held.minus(spend)

    def settle(self, taken: Spend, spent: Spend) -> None:
        """This much was spent; it stays held until ``written``."""
        self._held = self._held.minus(taken) + spent
        self._unwritten += spent

    def written(self, outcomes: Sequence[Outcome]) -> None:
        """The job's counts in Redis have these outcomes."""
        spent = Spend(
            sum(o.usage.total_tokens for o in outcomes if o.usage),
            sum(round(o.cost_usd * PICO) for o in outcomes if o.cost_usd),
        )
        left = self._unwritten.minus(spent)
        self._held = self._held.minus(self._unwritten.minus(left))
        self._unwritten = left

    def _serve(self) -> None:
        if not self._is_serving:
            self._is_serving = True
            self._tasks.start_soon(self._run)

    async def _run(self) -> None:
        """Exchange as long as anything waits or is held."""
        try:
            while True:
                is_told = True
                try:
                    pause_s = await self._exchange()
                except StoreError:  # without Redis nothing may be spent, and nothing is lost
                    is_told, pause_s = False, LOOK_S
                if is_told and not self._waiters and self._held == self._spare == Spend():
                    return
                await asyncio.sleep(pause_s)
                if not self._waiters:
                    self._wake.clear()
                    with move_on_after(LOOK_S):
                        await self._wake.wait()
                    await asyncio.sleep(0)  # let the other requests of this turn join the group
        finally:
            self._is_serving = False

    async def _exchange(self) -> float:
        self._waiters = deque(w for w in self._waiters if not w.turn.done())
        asking = [self._waiters[at] for at in range(min(_GROUP, len(self._waiters)))]
        wanted, self._taken = self._taken + self._taken, Spend()
        # Whoever takes meanwhile waits for the reply: it replaces the spare.
        self._spare = Spend()
        asked = [n for waiter in asking for n in (waiter.spend.tokens, waiter.spend.pico)]
        held = [self._held.tokens, self._held.pico]
        args = [self._name, int(HOLD_S * 1e6), *held, wanted.tokens, wanted.pico, *asked]
        reply = await run_script(self._redis, "allow", keys=self._keys, args=args)
        granted, cause = int(reply[0]), text(reply[1])
        for _ in range(granted):
            waiter = self._waiters.popleft()
            if not waiter.turn.done():
                self._held += waiter.spend
                resolve(waiter.turn)
        self._spare = Spend(int(reply[2]), int(reply[3]))
        self._is_short = cause == "wait"
        if cause in _REACHED:
            self._refuse(cause)
        return AGAIN_S if self._is_short else GROUP_S

    def _refuse(self, cause: str) -> None:
        message = f"{CAP_REACHED}: producer resume {self._job_id} {_REACHED[cause]} goes on"
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.turn.done():
                info = ErrorInfo(type="CapReached", message=message)
                waiter.turn.set_exception(CapReachedError(info))


_REACHED = {"tokens": "--max-total-tokens N", "cost": "--max-cost USD"}


class Allowances:
    """One allowance per job that has a cap, made when first asked for; the last ones are kept."""

    def __init__(self, redis: Redis, tasks: TaskGroup, *, name: str) -> None:
        self._redis = redis
        self._tasks = tasks
        self._name = name
        self._allowances: dict[str, Allowance] = {}

    def of(self, job_id: str) -> Allowance:
        """The job's, shared by its batches in this process."""
        allowance = self._allowances.pop(job_id, None)
        if allowance is None:
            allowance = Allowance(self._redis, job_id, self._tasks, name=self._name)
        self._allowances[job_id] = allowance
        if len(self._allowances) > KEPT:
            del self._allowances[next(iter(self._allowances))]
        return allowance
