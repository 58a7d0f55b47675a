"""A batch, from its message to its part: claim, send what has no outcome, publish, count off.

The steps stand in ``run_batch`` in their order; what each must hold against is said where it is
done. A batch whose worker dies anywhere in between is claimed again by another, which skips the
rows whose outcome is in the checkpoint.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain

from flavor.errors import ErrorInfo, InputError, LeaseLostError
from flavor.types import Row, StrEnum
from worker.broker import described, publish
from worker.checkpoint import count_off, flush, secure
from worker.claim import claim_batch
from worker.codec import decode_outcomes, decode_rows
from worker.jobs import FINAL, FIRST, JobState, Outcome, Verdict, ahead
from worker.ledger import CountOff
from worker.open_batch import OpenBatch
from worker.process import Process
from worker.publish import publish_part
from worker.recovery import recall, rescue
from worker.sending import send_rows
from worker.stop import StoppedError, StopReason
from worker.suspects import is_suspect

log = logging.getLogger(__name__)


class BatchEnd(StrEnum):
    """What became of one delivery of a batch."""

    DONE = "done"
    RELEASED = "released"  # given back unfinished: the worker stops, or the job is paused
    LOST = "lost"  # another worker has the batch
    REFUSED = "refused"  # a duplicate message, or a job that is not running


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One delivery of a batch and its end. Flower shows the text of it as the task's result.

    ``name`` is the job's, or its id where nobody knows the job.
    """

    end: BatchEnd
    name: str
    batch: str
    rows: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        what = f"({described(self.name, self.batch, self.rows)})"
        return f"{self.end}: {self.detail} {what}" if self.detail else f"{self.end}: {what}"


async def run_batch(process: Process, job_id: str, number: str) -> Delivery:
    """Work off the batch that a message names, or the one whose turn it is (``worker.schedule``).

    Waits until the batch is counted off or given back.

    Raises:
        InputError: the job's data or model cannot be used by this worker; the job is paused.
    """
    refused = partial(Delivery, end=BatchEnd.REFUSED, name=job_id, batch=number)
    try:
        claimed = await claim_batch(process, job_id, number)
    except StoppedError:
        process.too_late.add((job_id, number))
        return refused(detail=StopReason.SHUTDOWN)
    if isinstance(claimed, str):
        if process.stopping.reason is not None:  # it may be what this very batch was given back by
            process.too_late.add((job_id, number))
        log.info(
            "batch refused",
            extra={"event": "batch_refused", "job_id": job_id, "batch": number, "reason": claimed},
        )
        return refused(name=process.known_name(job_id), detail=claimed)
    batch = claimed
    key = (batch.lease.job_id, batch.lease.batch)
    process.open[key] = batch
    if process.stopping.reason is not None:  # the signal came while the claim was on its way
        batch.sending.set(process.stopping.reason)
    if batch.lease.ending is JobState.CANCELLED:  # before the claim: no beat need tell of it
        batch.sending.set(StopReason.CANCELLED)
    started_s = time.monotonic()
    try:
        end = await _work_off(process, batch)
    finally:
        del process.open[key]
        if batch.lane is not None:  # what a lost batch could not write must not hold the cap
            batch.lane.written(batch.pending.outcomes)
    process.meter.deliveries[end] += 1
    return _ended(batch, end, time.monotonic() - started_s)


async def _work_off(process: Process, batch: OpenBatch) -> BatchEnd:
    try:
        rows = await _load(process, batch)
        async with _apart(process, batch):
            await send_rows(process, batch, rows=rows)
        await process.patiently(partial(secure, process, batch), batch.holding)
        batch.holding.check()
        if len(batch.outcomes) < len(rows):
            if batch.sending.reason is not StopReason.CANCELLED:
                return await _release(process, batch)
            _cancel_the_rest(batch, rows)
            await process.patiently(partial(flush, process, batch), batch.holding)
            batch.holding.check()
        await _publish(process, batch)
        await _count_off(process, batch)
    except LeaseLostError:
        return await _lose(process, batch)
    except StoppedError:
        if batch.holding.reason is StopReason.LEASE_LOST:
            return await _lose(process, batch)
        return await _release(process, batch)
    except InputError as error:
        await process.store.pause(batch.lease.job_id, str(error))
        await _release(process, batch)
        raise
    return BatchEnd.DONE


@asynccontextmanager
async def _apart(process: Process, batch: OpenBatch) -> AsyncIterator[None]:
    """Send a suspect's rows while no other suspect is sent; its wait is no delivery."""
    limit = process.settings.max_deliveries
    if not is_suspect(batch.lease.deliveries, max_deliveries=limit):
        yield
        return

    async def weigh(change: int) -> None:
        await process.patiently(partial(process.ledger.weigh, batch.lease, change), batch.holding)

    await weigh(-1)
    batch.arrive()  # its turn may be long in coming
    async with process.suspects.turn(batch.sending):
        await weigh(1)  # also where it was stopped: to release it takes one off
        yield


async def _load(process: Process, batch: OpenBatch) -> list[Row]:
    """The batch's rows; those with an outcome in the checkpoint are taken as done."""
    payload, checkpoint = await process.patiently(
        partial(process.ledger.load, batch.lease), batch.holding
    )
    if payload is None:
        raise InputError(
            f"the rows of batch {batch.lease.batch} are gone from Redis: resume the job"
        )
    try:
        rows = decode_rows(payload)
        for outcome in chain.from_iterable(map(decode_outcomes, checkpoint)):
            batch.outcomes[outcome.index] = outcome
    except ValueError as error:
        raise InputError(f"batch {batch.lease.batch} in Redis is broken: {error}") from error
    batch.record(await process.patiently(partial(recall, process, batch), batch.holding))
    batch.rows = len(rows)
    if batch.lease.deliveries > process.settings.max_deliveries:
        _set_aside(batch, rows)
    return rows


def _set_aside(batch: OpenBatch, rows: Sequence[Row]) -> None:
    """A batch that keeps killing its workers costs its own rows, not the fleet."""
    info = ErrorInfo(
        type="BatchSetAside",
        message=f"{batch.lease.deliveries - 1} workers died or lost the batch while they had it",
    )
    batch.record(
        [
            Outcome(row_id=row.row_id, index=row.index, verdict=Verdict.EXHAUSTED, error=info)
            for row in rows
            if row.index not in batch.outcomes
        ]
    )
    log.error(
        "batch set aside",
        extra={
            "event": "batch_set_aside",
            "job_id": batch.lease.job_id,
            "batch": batch.lease.batch,
            "deliveries": batch.lease.deliveries,
        },
    )


async def _lose(process: Process, batch: OpenBatch) -> BatchEnd:
    """Somebody else has the batch, or nobody: then what was paid for is kept for ``resume``."""
    status = partial(process.store.status, batch.lease.job_id)
    try:
        if await process.patiently(status, process.stopping) is None:
            await process.patiently(partial(rescue, process, batch), process.stopping)
    except StoppedError:
        await rescue(process, batch)  # the process ends: one last try, whatever Redis knows
    return BatchEnd.LOST


async def _release(process: Process, batch: OpenBatch) -> BatchEnd:
    """Give the batch back with its checkpoint. A paused job's batches wait for ``resume``."""
    lease = batch.lease
    if process.settings.parent_pid is not None:
        await rescue(process, batch)  # the embedded Redis ends with its parent
    if not await process.ledger.release(lease):
        return await _lose(process, batch)
    status = await process.store.status(lease.job_id)  # now: it may be resumed already
    if status is None or status.state is not JobState.PAUSED:
        await asyncio.to_thread(
            publish,
            process.app,
            lease.job_id,
            name=batch.spec.name,
            batches={lease.batch: batch.rows},
            priority=ahead(batch.spec.priority),
        )
    return BatchEnd.RELEASED


def _cancel_the_rest(batch: OpenBatch, rows: Sequence[Row]) -> None:
    batch.record(
        [
            Outcome(row_id=row.row_id, index=row.index, verdict=Verdict.CANCELLED)
            for row in rows
            if row.index not in batch.outcomes
        ]
    )


async def _publish(process: Process, batch: OpenBatch) -> None:
    """Put the part into the run. A repeat writes the same file again."""
    step = partial(
        process.in_mlflow_thread,
        publish_part,
        process.runs,
        batch.spec,
        batch=batch.lease.batch,
        outcomes=list(batch.outcomes.values()),
    )
    try:
        await process.patiently(step, batch.holding)
    except BaseException:  # a full disk, a store that refuses: the vectors are paid for
        await process.patiently(partial(flush, process, batch), batch.holding)
        raise


async def _count_off(process: Process, batch: OpenBatch) -> None:
    """Strike the batch off; after the last one, ask for the run to be finalized."""
    lease = batch.lease
    counted = await process.patiently(partial(count_off, process, batch), batch.holding)
    if counted is CountOff.LAST:
        # A worker that dies before this line loses the message, not the work: "final" is queued
        # in the ledger, and a reaper publishes it.
        await asyncio.to_thread(
            publish,
            process.app,
            lease.job_id,
            name=batch.spec.name,
            batches={FINAL: batch.spec.rows},
            priority=FIRST,
        )


def _ended(batch: OpenBatch, end: BatchEnd, duration_s: float) -> Delivery:
    """The one log line of a batch, and its result."""
    verdicts = [outcome.verdict for outcome in batch.outcomes.values()]
    succeeded, dead = (
        verdicts.count(Verdict.SUCCEEDED),
        sum(verdict.is_dead for verdict in verdicts),
    )
    log.info(
        "batch ended",
        extra={
            "event": f"batch_{end}",
            "job_id": batch.lease.job_id,
            "batch": batch.lease.batch,
            "rows": len(verdicts),
            "succeeded": succeeded,
            "dead": dead,
            "duration_s": round(duration_s, 3),
        },
    )
    reason = batch.sending.reason
    return Delivery(
        end=end,
        name=batch.spec.name,
        batch=batch.lease.batch,
        rows=batch.rows,
        detail=f"{succeeded} succeeded, {dead} dead" + (f", {reason}" if reason else ""),
    )
