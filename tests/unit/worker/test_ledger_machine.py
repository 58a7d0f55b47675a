"""The ledger under any interleaving of workers that claim, lose, write and strike off.

The machine below keeps the plain truth beside Redis: who holds what, and each row's first outcome.
After every step Redis must say the same.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from flavor.errors import LeaseLostError
from tests.fake_redis import FakeRedis
from tests.unit.worker.making import JOB, end_lease, make_ledger, make_outcome, names
from tests.unit.worker.making import submit_batches as submit_job
from worker.codec import decode_outcomes
from worker.jobs import FINAL, JobState, Lease, Outcome, Verdict
from worker.ledger import CountOff, Refusal
from worker.pending import Pending
from worker.redis_client import text

_T = TypeVar("_T")

BATCHES = ("0", "1")
ROWS = 3
WORKERS = ("w1", "w2", "w3")

batches = st.sampled_from(BATCHES)
workers = st.sampled_from(WORKERS)
verdicts = st.sampled_from([Verdict.SUCCEEDED, Verdict.REJECTED, Verdict.EXHAUSTED])


class LedgerMachine(RuleBasedStateMachine):
    """Several workers on one job of two batches; leases end only when told to."""

    leases: Bundle[Lease] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.redis = FakeRedis()
        self.ledgers = {name: make_ledger(self.redis, name) for name in WORKERS}
        self.ledger = self.ledgers["w1"]
        self.holders: dict[str, Lease] = {}
        self.ended: set[str] = set()
        self.is_silent = False  # no worker was heard of lately: overdue leases are not taken
        self.highest_fence: dict[str, int] = dict.fromkeys(BATCHES, 0)
        self.first: dict[int, Outcome] = {}
        self.pending: dict[Lease, Pending] = defaultdict(Pending)
        self.recorded: dict[Lease, set[int]] = {}  # rows whose outcome the lease's holder knows
        self.struck_off: list[str] = []
        self.elections = 0
        self.sent = 0
        self.owned: set[str] = set()  # batches that somebody has claimed and not given back
        self.doubted = 0
        self.written = 0

    def run(self, step: Coroutine[Any, Any, _T]) -> _T:
        return self.loop.run_until_complete(step)

    def is_current(self, lease: Lease) -> bool:
        return self.holders.get(lease.batch) == lease

    @initialize()
    def submit(self) -> None:
        self.run(submit_job(self.redis, len(BATCHES), rows=ROWS))

    @rule(target=leases, worker=workers, batch=batches)
    def claim(self, worker: str, batch: str) -> Any:
        reply = self.run(self.ledgers[worker].claim(JOB, batch))

        if batch in self.struck_off:
            assert reply is Refusal.DONE
        elif batch in self.holders and (batch not in self.ended or self.is_silent):
            assert reply is Refusal.HELD
        else:
            assert isinstance(reply, Lease)
            assert reply.fence > self.highest_fence[batch]
            self.highest_fence[batch] = reply.fence
            if batch in self.owned:
                known = sum(index // ROWS == int(batch) for index in self.first)
                self.doubted += ROWS - known
            self.owned.add(batch)
            self.holders[batch] = reply
            self.ended.discard(batch)
            self.recorded[reply] = set(self.first)
            return reply
        return multiple()

    @precondition(lambda self: self.holders.keys() - self.ended)
    @rule(data=st.data())
    def let_a_lease_end(self, data: st.DataObject) -> None:
        self._end_lease(data.draw(st.sampled_from(sorted(self.holders.keys() - self.ended))))

    @precondition(lambda self: self.ended)
    @rule()
    def reap(self) -> None:
        taken = self.run(self.ledger.expired(JOB))

        assert sorted(taken) == ([] if self.is_silent else sorted(self.ended))
        for batch in taken:
            del self.holders[batch]
            self.ended.discard(batch)

    @rule(has_pulse_again=st.booleans())
    def fall_silent(self, has_pulse_again: bool) -> None:
        """Redis was away from all workers; the first pulse after it is no time to renew yet."""
        self.run(self._forget_the_pulse())
        if has_pulse_again:
            self.run(self.ledger.pulse())
        self.is_silent = True

    @rule(lease=leases, change=st.sampled_from([-1, 1]))
    def weigh(self, lease: Lease, change: int) -> None:
        self.run(self.ledger.weigh(lease, change))

    @rule(lease=leases)
    def renew(self, lease: Lease) -> None:
        (renewal,) = self.run(self.ledger.renew([lease]))

        assert renewal.is_held == self.is_current(lease)
        if renewal.is_held:
            self.ended.discard(lease.batch)

    @rule(lease=leases, places=st.sets(st.integers(0, ROWS - 1)), verdict=verdicts)
    def record(self, lease: Lease, places: set[int], verdict: Verdict) -> None:
        """As an open batch does: a row's later outcomes are nothing to it."""
        recorded, pending = self.recorded[lease], self.pending[lease]
        outcomes = [self._outcome(lease, place, verdict) for place in sorted(places)]
        pending.outcomes += [o for o in outcomes if o.index not in recorded]
        pending.sent += len(outcomes)
        recorded.update(outcome.index for outcome in outcomes)

    @rule(lease=leases, is_reply_lost=st.booleans())
    def checkpoint(self, lease: Lease, is_reply_lost: bool) -> None:
        taken = self.pending[lease].take()
        self.sent += taken.sent

        (is_held,) = self.run(self.ledger.checkpoint([(lease, taken)]))

        assert is_held == self.is_current(lease)
        if is_held:
            for outcome in taken.outcomes:
                self.first.setdefault(outcome.index, outcome)
        if is_reply_lost:
            self.pending[lease].put_back(taken)

    @rule(lease=leases)
    def release(self, lease: Lease) -> None:
        is_released = self.run(self.ledger.release(lease))

        assert is_released == self.is_current(lease)
        if is_released:
            del self.holders[lease.batch]
            self.owned.discard(lease.batch)
            self.ended.discard(lease.batch)

    @rule(lease=leases, is_reply_lost=st.booleans())
    def count_off(self, lease: Lease, is_reply_lost: bool) -> None:
        """With what waits: some of it may be written already, by a checkpoint that told nothing."""
        taken = self.pending[lease].take()
        self.sent += taken.sent
        if not self.is_current(lease):
            with pytest.raises(LeaseLostError):
                self.run(self.ledger.count_off(lease, taken))
            return
        for outcome in taken.outcomes:
            self.first.setdefault(outcome.index, outcome)
        self._strike_off(lease, taken)
        if is_reply_lost:
            self.pending[lease].put_back(taken)

    @precondition(lambda self: len(self.struck_off) < len(BATCHES))
    @rule(worker=workers)
    def claim_final_too_early(self, worker: str) -> None:
        assert self.run(self.ledgers[worker].claim(JOB, FINAL)) is Refusal.DONE

    @invariant()
    def every_batch_is_queued_held_or_struck_off(self) -> None:
        queued, due = self.run(self._open_batches())
        left = set(BATCHES) - set(self.struck_off)

        assert due == set(self.holders)
        assert queued - {FINAL} == left - due
        assert (FINAL in queued) == (not left)
        assert self.elections == (not left)

    @invariant()
    def the_first_outcome_of_each_row_stays(self) -> None:
        for batch in set(BATCHES) - set(self.struck_off):
            key = f"job:{{{JOB}}}:outcomes:{batch}"
            blobs = self.run(self._hash(key)).values()
            saved = {outcome.index: outcome for v in blobs for outcome in decode_outcomes(v)}

            assert saved == {n: o for n, o in self.first.items() if n // ROWS == int(batch)}

    @invariant()
    def counts_are_those_of_the_distinct_rows(self) -> None:
        counts = {k: int(v) for k, v in self.run(self._hash(f"job:{{{JOB}}}:counts")).items()}
        outcomes = self.first.values()

        for verdict in Verdict:
            expected = sum(outcome.verdict is verdict for outcome in outcomes)
            assert counts.get(b"rows_%b" % verdict.encode(), 0) == expected
        assert counts.get(b"tokens_total", 0) == 15 * len(self.first)
        assert counts.get(b"requests_sent", 0) == self.sent
        assert counts.get(b"rows_in_doubt", 0) == self.doubted

    def teardown(self) -> None:
        """Whatever happened: a worker that comes now ends the job, and nothing else remains."""
        try:
            if self.run(names(self.redis)):
                self._end_the_job()
        finally:
            self.run(self.redis.aclose())
            self.loop.close()

    def _outcome(self, lease: Lease, place: int, verdict: Verdict) -> Outcome:
        self.written += 1  # tells this outcome from every other one of the row
        index = int(lease.batch) * ROWS + place
        return make_outcome(index, verdict=verdict, attempts=self.written)

    def _end_lease(self, batch: str) -> None:
        if batch in self.holders:
            self.run(end_lease(self.redis, batch))  # while workers were alive
            self.ended.add(batch)
            self.is_silent = False

    def _strike_off(self, lease: Lease, taken: Pending) -> None:
        counted = self.run(self.ledger.count_off(lease, taken))
        del self.holders[lease.batch]
        self.ended.discard(lease.batch)
        self.struck_off.append(lease.batch)
        is_last = len(self.struck_off) == len(BATCHES)
        assert counted is (CountOff.LAST if is_last else CountOff.COUNTED)
        self.elections += is_last

    def _end_the_job(self) -> None:
        for batch in BATCHES:
            if batch not in self.struck_off:
                self._end_lease(batch)
                self.claim("w1", batch)
                self.record(self.holders[batch], set(range(ROWS)), Verdict.SUCCEEDED)
                self.checkpoint(self.holders[batch], is_reply_lost=False)
                self._strike_off(self.holders[batch], Pending())
        self.every_batch_is_queued_held_or_struck_off()
        self.counts_are_those_of_the_distinct_rows()
        final = self.run(self.ledger.claim(JOB, FINAL))
        assert isinstance(final, Lease)
        self.run(self.ledger.finish(final, JobState.COMPLETED, {}))

        assert self.run(names(self.redis)) <= {
            "jobs",
            "pulse",
            f"job:{{{JOB}}}",
            f"job:{{{JOB}}}:counts",
        }
        assert sorted(self.struck_off) == list(BATCHES)

    async def _open_batches(self) -> tuple[set[str], set[str]]:
        queued = await self.redis.zrange(f"job:{{{JOB}}}:queued", 0, -1)
        due = await self.redis.zrange(f"job:{{{JOB}}}:due", 0, -1)
        return set(map(text, queued)), set(map(text, due))

    async def _forget_the_pulse(self) -> None:
        await self.redis.hset("pulse", mapping={"at_ms": 1, "resumed_ms": 0})
        await self.redis.expire("pulse", 60)

    async def _hash(self, key: str) -> dict[bytes, bytes]:
        found: Any = await self.redis.hgetall(key)
        return cast("dict[bytes, bytes]", found)


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    suppress_health_check=[HealthCheck.too_slow],
)
