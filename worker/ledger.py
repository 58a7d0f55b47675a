"""The ledger: which batch is whose, what is done, what comes next. A Celery message is only a hint.

A batch is *queued* until somebody claims it, then *due* at the end of its lease, then struck off.
Every write under a lease names its fence, so a worker that lost its lease can change nothing. The
steps that must hold together are in ``lua/``; this file names their keys and reads their replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from redis.asyncio import Redis

from flavor.errors import LeaseLostError
from flavor.types import StrEnum
from worker import keys
from worker.jobs import FINAL, JobState, Lease
from worker.pending import Pending, values_of
from worker.redis_client import ScriptPipeline, run_script, server_id, text, translated_errors


class Refusal(StrEnum):
    """Why a claim was not granted."""

    HELD = "held"  # another lease on it runs
    DONE = "done"  # struck off already: the message was a duplicate
    GONE = "gone"  # no such job
    NOT_RUNNING = "not_running"  # the job is paused or has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What a renewal told: whether the lease still holds, and how the job stands."""

    is_held: bool
    state: JobState | None  # None: the job is gone
    ending: JobState | None


class CountOff(StrEnum):
    """What striking a batch off meant."""

    COUNTED = "counted"
    LAST = "last"  # the run can be finalized, and that is the caller's to start


class Ledger:
    """The leases and checkpoints of all jobs. Every method raises ``StoreError`` without Redis."""

    def __init__(self, redis: Redis, *, owner: str, lease_s: float) -> None:
        self._redis = redis
        self._owner = owner
        self._lease_ms = int(lease_s * 1000)

    async def claim(self, job_id: str, batch: str) -> Lease | Refusal:
        """Take the batch's lease. Two claims at once: one is granted, the other refused."""
        server = await server_id(self._redis)
        reply = await run_script(
            self._redis,
            "claim",
            keys=[
                keys.job(job_id),
                keys.queued(job_id),
                keys.due(job_id),
                keys.batch(job_id, batch),
                keys.PULSE,
                keys.rows(job_id, batch),
                keys.outcomes(job_id, batch),
                keys.counts(job_id),
            ],
            args=[batch, self._owner, self._lease_ms, server],
        )
        status = text(reply[0])
        if status == "granted":
            fence, deliveries, is_restarted, is_capped = map(int, reply[1:5])
            ending = text(reply[5])
            return Lease(
                job_id=job_id,
                batch=batch,
                fence=fence,
                deliveries=deliveries,
                server=server if is_restarted else None,
                ending=JobState(ending) if ending else None,
                is_capped=bool(is_capped),
            )
        return Refusal(status) if status in set(Refusal) else Refusal.NOT_RUNNING

    async def load(self, lease: Lease) -> tuple[bytes | None, list[bytes]]:
        """A claimed batch's rows (None: the key is gone) and its checkpoint (see ``codec``)."""
        async with translated_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.get(keys.rows(lease.job_id, lease.batch))
            pipe.hvals(keys.outcomes(lease.job_id, lease.batch))
            payload, checkpoint = await pipe.execute()
        return payload, checkpoint

    async def pulse(self) -> None:
        """Say that this worker lives. Overdue batches are taken only while somebody says so."""
        await run_script(self._redis, "pulse", keys=[keys.PULSE], args=[self._lease_ms])

    async def renew(self, leases: Sequence[Lease]) -> list[Renewal]:
        """Extend all leases in one round trip, and hear how their jobs stand."""
        calls = ScriptPipeline(self._redis)
        for lease in leases:
            job_id, batch = lease.job_id, lease.batch
            calls.add(
                "renew",
                [keys.job(job_id), keys.due(job_id), keys.batch(job_id, batch)],
                [batch, lease.fence, self._lease_ms],
            )
        return [_renewal(reply) for reply in await calls.execute()]

    async def checkpoint(self, pending: Sequence[tuple[Lease, Pending]]) -> list[bool]:
        """Write outcomes of several batches in one round trip; False where the lease is lost."""
        calls = ScriptPipeline(self._redis)
        for lease, item in pending:
            calls.add("checkpoint", _tallied(lease), _tally(lease, item, is_kept=True))
        return [int(reply) >= 0 for reply in await calls.execute()]

    async def count_off(self, lease: Lease, pending: Pending) -> CountOff:
        """Strike a batch off whose part is in the run. Once: a second strike is refused.

        What is ``pending`` is counted in the same step. Its outcomes are not kept: the part has
        them.

        Raises:
            LeaseLostError: somebody else has the batch, or it was struck off before. Of what is
                pending the requests alone were counted: twice, where the reply of an earlier try
                was lost.
        """
        job_id, batch = lease.job_id, lease.batch
        reply = await run_script(
            self._redis,
            "count_off",
            keys=[
                *_tallied(lease),
                keys.job(job_id),
                keys.queued(job_id),
                keys.due(job_id),
                keys.rows(job_id, batch),
            ],
            args=_tally(lease, pending, is_kept=False),
        )
        if text(reply) == "lost":
            raise LeaseLostError(f"batch {batch} of {job_id} is no longer ours")
        return CountOff(text(reply))

    async def release(self, lease: Lease) -> bool:
        """Give an unfinished batch back; False when the lease was lost already."""
        job_id, batch = lease.job_id, lease.batch
        touched = [keys.queued(job_id), keys.due(job_id), keys.batch(job_id, batch)]
        return bool(
            await run_script(self._redis, "release", keys=touched, args=[batch, lease.fence])
        )

    async def weigh(self, lease: Lease, change: int) -> None:
        """Change how many deliveries count against the batch; not where the lease is lost."""
        touched = [keys.batch(lease.job_id, lease.batch)]
        await run_script(self._redis, "weigh", keys=touched, args=[lease.fence, change])

    async def finish(self, lease: Lease, state: JobState, totals: Mapping[str, int]) -> None:
        """End the job; its keys expire. ``totals`` replace the progress counts: they are exact.

        Raises:
            LeaseLostError: another finalizer has taken over.
        """
        job_id = lease.job_id
        is_done = await run_script(
            self._redis,
            "finish",
            keys=[
                keys.job(job_id),
                keys.due(job_id),
                keys.batch(job_id, FINAL),
                keys.counts(job_id),
                keys.workers(job_id),
                keys.ACTIVE,
            ],
            args=[job_id, lease.fence, state.value, keys.FINISHED_TTL_S, *chain(*totals.items())],
        )
        if not is_done:
            raise LeaseLostError(f"another worker finalizes {job_id}")

    async def expired(self, job_id: str) -> list[str]:
        """Take the batches whose lease has ended from their owners, and name them."""
        async with translated_errors():
            seconds, micros = await self._redis.time()
            now_ms = seconds * 1000 + micros // 1000
            overdue = await self._redis.zrangebyscore(
                keys.due(job_id), "-inf", now_ms, start=0, num=100
            )
        calls = ScriptPipeline(self._redis)
        batches = [text(batch) for batch in overdue]
        for batch in batches:
            touched = [
                keys.queued(job_id),
                keys.due(job_id),
                keys.batch(job_id, batch),
                keys.PULSE,
            ]
            calls.add("expire", touched, [batch, self._lease_ms])
        replies = await calls.execute() if batches else []
        return [batch for batch, taken in zip(batches, replies, strict=True) if taken]

    async def queued(self, job_ids: Sequence[str]) -> int:
        """How many batches of these jobs wait for a claim, and so for a message."""
        async with translated_errors():
            pipe = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.zcard(keys.queued(job_id))
                pipe.hget(keys.job(job_id), "state")
            replies = await pipe.execute()
        pairs = zip(replies[::2], replies[1::2], strict=True)
        return sum(count for count, state in pairs if text(state) != JobState.PAUSED)

    async def unheard(self, job_id: str, limit: int) -> list[str]:
        """The batches queued for longest, and for longer than a lease, at most ``limit``.

        Call it with the number of messages that the broker has too few. Which ones were lost nobody
        can tell; but a message of any batch at all is a duplicate at worst, and as batches are
        claimed in their order, those whose message was lost are soon the ones that wait longest.
        """
        reply = await run_script(
            self._redis,
            "republish",
            keys=[keys.queued(job_id), keys.job(job_id)],
            args=[self._lease_ms, limit],
        )
        return [text(batch) for batch in reply]


def _tallied(lease: Lease) -> list[str]:
    """The keys that ``lua/tally.lua`` takes, in its order."""
    job_id, batch = lease.job_id, lease.batch
    return [keys.batch(job_id, batch), keys.outcomes(job_id, batch), keys.counts(job_id)]


def _tally(lease: Lease, pending: Pending, *, is_kept: bool) -> list[Any]:
    """The arguments that ``lua/tally.lua`` takes, in its order."""
    values = [values_of(group, is_kept=is_kept) for group in pending.groups]
    return [lease.fence, *pending.counts, lease.batch, *chain.from_iterable(values)]


def _renewal(reply: Sequence[Any]) -> Renewal:
    state, ending = text(reply[1]), text(reply[2])
    return Renewal(
        is_held=bool(reply[0]),
        state=None if state == "gone" else JobState(state),
        ending=JobState(ending) if ending else None,
    )
