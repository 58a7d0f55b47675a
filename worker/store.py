"""Jobs in Redis: written by the producer, read by everybody. Leases and checkpoints: ``ledger``.

The order of writing matters. A job is a *draft* until all its batches are stored: drafts are
invisible to workers, and one whose producer died is thrown away.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from flavor.errors import InputError
from worker import keys
from worker.codec import HEAD_BYTES, encode_outcomes, row_count
from worker.jobs import PICO, VERDICT_FIELDS, Cap, JobSpec, JobState, Outcome
from worker.redis_client import run_script, server_id, text, translated_errors
from worker.reports import Report
from worker.status import JobStatus, status_of


class Store:
    """Every job that Redis knows. Methods raise ``StoreError`` when Redis is away or full."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def begin(self, spec: JobSpec) -> None:
        """Write a new job as a draft that no worker sees yet.

        Raises:
            InputError: another producer is writing it right now.
        """
        now_ms = _now_ms()
        async with translated_errors():
            if not await self._redis.zadd(keys.DRAFTS, {spec.job_id: now_ms}, nx=True):
                raise InputError(f"job {spec.job_id} is being resumed by somebody else")
            pipe = self._redis.pipeline()
            pipe.delete(keys.job(spec.job_id))  # an ended job that is resumed
            pipe.hset(
                keys.job(spec.job_id),
                mapping={
                    "spec": spec.to_json(),
                    "state": "draft",
                    "created_ms": now_ms,
                    "priority": spec.priority,
                    **_cap_fields(spec.cap),
                },
            )
            await pipe.execute()

    async def add_batches(self, job_id: str, payloads: Sequence[tuple[int, bytes]]) -> None:
        """Store batches of a draft. One round trip."""
        now_ms = _now_ms()
        async with translated_errors():
            pipe = self._redis.pipeline(transaction=False)
            for batch, payload in payloads:
                pipe.set(keys.rows(job_id, str(batch)), payload)
            # In their order: what is published first shall be missed first.
            scores = {
                str(batch): now_ms + place / 1000 for place, (batch, _) in enumerate(payloads)
            }
            pipe.zadd(keys.queued(job_id), scores)
            pipe.zadd(keys.DRAFTS, {job_id: now_ms})
            await pipe.execute()

    async def add_outcomes(self, job_id: str, batch: int, outcomes: Sequence[Outcome]) -> None:
        """Give a draft's batch the outcomes that its rows have already."""
        if outcomes:
            blobs: Mapping[Any, Any] = {
                str(outcome.index): encode_outcomes([outcome]) for outcome in outcomes
            }
            async with translated_errors():
                await self._redis.hset(keys.outcomes(job_id, str(batch)), mapping=blobs)

    async def commit(self, job_id: str, *, counts: Mapping[str, int] | None = None) -> None:
        """Make the draft a job: from here on it will be done, whoever dies.

        ``counts`` are the progress that a resumed job starts with.
        """
        now_ms = _now_ms()
        server = await server_id(self._redis)
        async with translated_errors():
            pipe = self._redis.pipeline()
            pipe.delete(keys.counts(job_id))
            if counts:
                before = sum(counts.get(name, 0) for name in VERDICT_FIELDS.values())
                pipe.hset(keys.job(job_id), "rows_before", before)
                fields: Mapping[Any, Any] = counts
                pipe.hset(keys.counts(job_id), mapping=fields)
            pipe.persist(keys.job(job_id))
            pipe.hset(keys.job(job_id), mapping={"state": JobState.QUEUED.value, "server": server})
            pipe.zadd(keys.JOBS, {job_id: now_ms})
            pipe.sadd(keys.ACTIVE, job_id)
            pipe.zrem(keys.DRAFTS, job_id)
            await pipe.execute()

    async def dead_drafts(self, silent_ms: int) -> list[str]:
        """Drafts whose producer has written nothing for so long."""
        async with translated_errors():
            reply = await self._redis.zrangebyscore(keys.DRAFTS, "-inf", _now_ms() - silent_ms)
        return [text(job_id) for job_id in reply]

    async def discard(self, job_id: str, batches: int) -> None:
        """Remove all that a draft of at most ``batches`` batches has written."""
        async with translated_errors():
            names = [
                name
                for batch in range(batches)
                for name in (keys.rows(job_id, str(batch)), keys.outcomes(job_id, str(batch)))
            ]
            for at in range(0, len(names), 1000):
                await self._redis.unlink(*names[at : at + 1000])
            pipe = self._redis.pipeline()
            pipe.unlink(keys.job(job_id), keys.queued(job_id))
            pipe.zrem(keys.DRAFTS, job_id)
            await pipe.execute()

    async def spec(self, job_id: str) -> JobSpec | None:
        """The job's spec; None when Redis does not know the job."""
        async with translated_errors():
            stored = await self._redis.hget(keys.job(job_id), "spec")
        return JobSpec.from_json(stored) if stored else None

    async def ending(self, job_id: str) -> JobState | None:
        """What the user asked the job to end as; None when it shall run to its end."""
        async with translated_errors():
            stored = await self._redis.hget(keys.job(job_id), "ending")
        return JobState(text(stored)) if stored else None

    async def unclaimed(self, job_id: str) -> dict[str, int | None]:
        """The batches that nobody has claimed; see ``row_counts``."""
        async with translated_errors():
            batches = await self._redis.zrange(keys.queued(job_id), 0, -1)
        return await self.row_counts(job_id, [text(batch) for batch in batches])

    async def row_counts(self, job_id: str, batches: Sequence[str]) -> dict[str, int | None]:
        """How many rows each batch has; None for one that is struck off, and for ``final``."""
        async with translated_errors():
            pipe = self._redis.pipeline(transaction=False)
            for batch in batches:
                pipe.getrange(keys.rows(job_id, batch), 0, HEAD_BYTES - 1)
            heads = await pipe.execute()
        return {batch: row_count(head) for batch, head in zip(batches, heads, strict=True)}

    async def active_jobs(self) -> list[str]:
        """Ids of the jobs that are not over."""
        async with translated_errors():
            return sorted(text(job_id) for job_id in await self._redis.smembers(keys.ACTIVE))

    async def pause(self, job_id: str, reason: str) -> bool:
        """Stop sending, with a reason for the user; False when the job is not running."""
        running = [JobState.QUEUED.value, JobState.IN_PROGRESS.value]
        moved, _ = await self._move(
            job_id, JobState.PAUSED.value, reason=reason, ending="", allowed=running
        )
        return moved

    async def cap(self, job_id: str) -> Cap:
        """What the job may spend now: a resume may have raised what it was submitted with."""
        async with translated_errors():
            tokens, pico = await self._redis.hmget(keys.job(job_id), "cap_tokens", "cap_pico")
        return Cap(
            total_tokens=int(tokens) if tokens else None,
            cost_usd=int(pico) / PICO if pico else None,
        )

    async def set_cap(self, job_id: str, cap: Cap) -> None:
        """Let the job spend so much from now on; what a cap leaves open stays as it is."""
        if fields := _cap_fields(cap):
            async with translated_errors():
                await self._redis.hset(keys.job(job_id), mapping=fields)

    async def unpause(self, job_id: str) -> None:
        """Let a paused job run again. Its batches must be published anew."""
        await self._move(
            job_id,
            JobState.IN_PROGRESS.value,
            reason="",
            ending="",
            allowed=[JobState.PAUSED.value],
        )

    async def cancel(self, job_id: str) -> None:
        """Let the rows in flight finish and cancel the others.

        Raises:
            InputError: the job is unknown, or past the point where anything could be cancelled.
        """
        stoppable = [JobState.QUEUED.value, JobState.IN_PROGRESS.value, JobState.PAUSED.value]
        moved, state = await self._move(
            job_id,
            JobState.IN_PROGRESS.value,
            reason="cancelled by the user",
            ending="cancelled",
            allowed=stoppable,
        )
        if not moved:
            raise InputError(
                f"job {job_id} is unknown to this Redis"
                if state == "gone"
                else f"job {job_id} is {state}: nothing is left to cancel"
            )

    async def report(self, job_id: str, worker: str, *, report: Report) -> None:
        """Tell what this worker does for the job right now; to be repeated every second or so."""
        value = report.to_json(_now_ms())
        async with translated_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hset(keys.workers(job_id), worker, value)
            pipe.expire(keys.workers(job_id), 60)
            await pipe.execute()

    async def may_sample(self, job_id: str, period_ms: int) -> bool:
        """Whether the caller is the one worker that writes metric points in this period."""
        async with translated_errors():
            return bool(await self._redis.set(keys.sampled(job_id), b"1", nx=True, px=period_ms))

    async def status(self, job_id: str) -> JobStatus | None:
        """How the job stands; None when Redis does not know it (any more)."""
        async with translated_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(keys.job(job_id))
            pipe.hgetall(keys.counts(job_id))
            pipe.hgetall(keys.workers(job_id))
            job, counts, workers = await pipe.execute()
        if not job or b"spec" not in job or job.get(b"state") == b"draft":
            return None
        spec = JobSpec.from_json(job[b"spec"])
        return status_of(spec, job=job, counts=counts, workers=workers, now_ms=_now_ms())

    async def statuses(self) -> list[JobStatus]:
        """All jobs that Redis remembers, newest first."""
        async with translated_errors():
            known = [text(job_id) for job_id in await self._redis.zrevrange(keys.JOBS, 0, -1)]
        statuses = {job_id: await self.status(job_id) for job_id in known}
        forgotten = [job_id for job_id, status in statuses.items() if status is None]
        if forgotten:
            async with translated_errors():
                await self._redis.zrem(keys.JOBS, *forgotten)
        return [status for status in statuses.values() if status is not None]

    async def _move(
        self, job_id: str, state: str, *, reason: str, ending: str, allowed: Sequence[str]
    ) -> tuple[bool, str]:
        reply = await run_script(
            self._redis, "move", keys=[keys.job(job_id)], args=[state, reason, ending, *allowed]
        )
        return bool(reply[0]), text(reply[1])


def _cap_fields(cap: Cap) -> dict[Any, Any]:
    fields: dict[Any, Any] = {}
    if cap.total_tokens is not None:
        fields["cap_tokens"] = cap.total_tokens
    if cap.cost_usd is not None:
        fields["cap_pico"] = round(cap.cost_usd * PICO)
    return fields


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
