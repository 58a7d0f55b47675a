"""A claimed batch while a process works on it: what it has and what it waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from uuid import uuid4

from worker.breaker import Breaker
from worker.jobs import JobSpec, Lease, Outcome
from worker.lanes import Lane
from worker.meter import Meter
from worker.pending import Pending
from worker.stop import Stop, StopReason

COMING_S = 5.0
"""For so long a claimed batch is taken to be on its way to the slots. A model that takes minutes to
load keeps its own batches waiting, not those of other jobs."""


class OpenBatch:
    """A claimed batch while it is worked on. Listed in ``Process.open``.

    ``sending`` stops new requests; ``holding`` stops everything, waits for services included.
    """

    def __init__(self, lease: Lease, spec: JobSpec, *, meter: Meter | None = None) -> None:
        self.lease = lease
        self.spec = spec
        self._meter = meter or Meter()
        self._recent = self._meter.of_job(spec.job_id)
        self.sending = Stop()
        self.holding = Stop()
        self.pending = Pending()
        self.outcomes: dict[int, Outcome] = {}
        self.lane: Lane | None = None
        self.breaker: Breaker | None = None
        self.rows: int | None = None  # known when they are loaded
        self.requests = 0
        self.in_flight = 0
        self.error: BaseException | None = None
        self.token = uuid4().hex  # of this opening: no other has the same
        self.is_forgotten = False  # Redis knows nothing of the job any more
        self.rescued = 0  # outcomes that are in the run already, see worker.recovery
        self._claimed_s = time.monotonic()
        self._has_arrived = False
        self._left = 0
        self._is_idle = asyncio.Event()

    @property
    def waiting_for(self) -> str:
        """What its rows wait for, in words."""
        if self.breaker is not None and self.breaker.is_open:
            return self.breaker.waiting_for
        return self.lane.waiting_for if self.lane else ""

    @property
    def is_coming(self) -> bool:
        """Whether its rows or its model are being fetched, and its requests are soon to come."""
        return not self._has_arrived and time.monotonic() - self._claimed_s < COMING_S

    def arrive(self) -> None:
        """Say that nothing of the batch is on its way to the slots any more."""
        self._has_arrived = True

    def expect(self, requests: int) -> None:
        """Say how many pieces of work the batch has before they are handed to the slots."""
        self.arrive()
        self.requests = self._left = requests
        if not requests:
            self._is_idle.set()

    async def idle(self) -> None:
        """Wait until every piece of work has ended; raise the first unexpected error."""
        await self._is_idle.wait()
        if self.error is not None:
            raise self.error

    def finished_one(self) -> None:
        """One piece of work has ended, with or without outcomes."""
        self._left -= 1
        if not self._left:
            self._is_idle.set()

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Take outcomes in; they wait for their checkpoint, or for the part."""
        new = [outcome for outcome in outcomes if outcome.index not in self.outcomes]
        self._meter.count(new)
        self._recent.count(new)
        for outcome in new:
            self.outcomes[outcome.index] = outcome
        self.pending.add(new)

    def lose(self) -> None:
        """The lease is gone: nothing more is sent, and nothing more may be written."""
        self.sending.set(StopReason.LEASE_LOST)
        self.holding.set(StopReason.LEASE_LOST)
