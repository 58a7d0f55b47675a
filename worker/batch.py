"""A batch, from its message to its part: claim, send what has no outcome, publish, count off.

The steps stand in ``run_batch`` in their order; what each must hold against is said where it is
done. A batch whose worker dies anywhere in between is claimed again by another, which skips the
rows that have an outcome.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial

from flavor.errors import ErrorInfo, InputError, JobError, LeaseLostError
from flavor.model import OpenAIModel, PyfuncModel
from flavor.types import Row, StrEnum
from worker.broker import publish
from worker.codec import decode_outcome, decode_rows
from worker.jobs import FINAL, JobState, Outcome, Verdict
from worker.ledger import CountOff, Refusal
from worker.open_batch import OpenBatch
from worker.packs import plan_packs
from worker.predict import predict_rows
from worker.process import Process
from worker.publish import publish_part
from worker.row import Way, run_rows
from worker.slots import Work
from worker.stop import Stop, StoppedError, StopReason
from worker.upkeep import flush

log = logging.getLogger(__name__)


class BatchEnd(StrEnum):
    """What became of one delivery of a batch; Flower shows it as the task's result."""

    DONE = "done"
    RELEASED = "released"  # given back unfinished: the worker stops, or the job is paused
    LOST = "lost"  # another worker has the batch
    REFUSED = "refused"  # a duplicate message, or a job that is not running


async def run_batch(process: Process, job_id: str, number: str) -> BatchEnd:
    """Work one delivery of a batch off. Waits until the batch is counted off or given back.

    Raises:
        InputError: the job's data or model cannot be used by this worker; the job is paused.
    """
    try:
        spec = await process.patiently(partial(process.spec, job_id), Stop())
    except InputError as error:  # before the claim: there is nothing to give back
        await process.store.pause(job_id, str(error))
        raise
    if spec is None:
        return BatchEnd.REFUSED
    lease = await process.patiently(partial(process.ledger.claim, job_id, number), Stop())
    if isinstance(lease, Refusal):
        log.info(
            "batch refused",
            extra={"event": "batch_refused", "job_id": job_id, "batch": number, "reason": lease},
        )
        return BatchEnd.REFUSED
    batch = OpenBatch(lease, spec)
    process.open[job_id, number] = batch
    started_s = time.monotonic()
    try:
        end = await _work_off(process, batch)
    finally:
        del process.open[job_id, number]
    _log_end(batch, end, time.monotonic() - started_s)
    return end


async def _work_off(process: Process, batch: OpenBatch) -> BatchEnd:
    try:
        rows = await _load(process, batch)
        await _hear_of_cancellation(process, batch)
        await _send(process, batch, rows)
        await process.patiently(partial(flush, process), batch.holding)
        batch.holding.check()
        if len(batch.outcomes) < len(rows):
            if batch.sending.reason is not StopReason.CANCELLED:
                return await _release(process, batch)
            _cancel_the_rest(batch, rows)
            await process.patiently(partial(flush, process), batch.holding)
        await _publish(process, batch)
        await _count_off(process, batch)
    except LeaseLostError:
        return BatchEnd.LOST
    except StoppedError:
        if batch.holding.reason is StopReason.LEASE_LOST:
            return BatchEnd.LOST
        return await _release(process, batch)
    except InputError as error:
        await process.store.pause(batch.lease.job_id, str(error))
        await _release(process, batch)
        raise
    return BatchEnd.DONE


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
        batch.outcomes.update((index, decode_outcome(blob)) for index, blob in checkpoint.items())
    except ValueError as error:
        raise InputError(f"batch {batch.lease.batch} in Redis is broken: {error}") from error
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


async def _hear_of_cancellation(process: Process, batch: OpenBatch) -> None:
    """A batch claimed after ``cancel`` sends nothing: the next beat would tell it too late."""
    ending = partial(process.store.ending, batch.lease.job_id)
    if await process.patiently(ending, batch.holding) is JobState.CANCELLED:
        batch.sending.set(StopReason.CANCELLED)


async def _send(process: Process, batch: OpenBatch, rows: Sequence[Row]) -> None:
    """Hand the rows without an outcome to the slots, and wait until all of them have ended."""
    todo = [row for row in rows if row.index not in batch.outcomes]
    if not todo or batch.sending.reason is not None:
        return
    model = await process.model(batch.spec)
    if isinstance(model, PyfuncModel):
        work = [partial(_predict, batch, model, todo)]
    else:
        way = await _way(process, batch, model)
        packs, dead = plan_packs(todo, model)
        batch.record(dead)
        work = [partial(_send_pack, process, batch, way=way, pack=pack) for pack in packs]
    batch.expect(len(work))
    for item in work:
        process.slots.put(partial(_guarded, batch, item))
    try:
        await batch.idle()
    finally:  # also where a row failed in a way nobody foresaw: the others are paid for
        await process.patiently(partial(flush, process), batch.holding)


async def _way(process: Process, batch: OpenBatch, model: OpenAIModel) -> Way:
    client = await process.client()
    batch.limiter = process.limiters.of(client.limit_key, model.openai_model, batch.spec.limits)
    settings = process.settings
    return Way(
        model=model,
        client=client,
        limiter=batch.limiter,
        stop=batch.sending,
        max_attempts=settings.max_attempts,
        deadline_s=settings.row_deadline_s,
        price=batch.spec.price,
        tally=batch.pending,
    )


async def _guarded(batch: OpenBatch, work: Work) -> None:
    """Run one piece of work for a slot, which must outlive it: errors go to the batch."""
    batch.in_flight += 1
    try:
        if batch.sending.reason is None:
            await work()
    except StoppedError:
        pass  # its rows have no outcome from us, and the batch knows why
    except BaseException as error:  # noqa: BLE001 - raised again by OpenBatch.idle
        batch.error = batch.error or error
        batch.sending.set(StopReason.SHUTDOWN)
    finally:
        batch.in_flight -= 1
        batch.finished_one()


async def _send_pack(process: Process, batch: OpenBatch, *, way: Way, pack: Sequence[Row]) -> None:
    try:
        batch.record(await run_rows(pack, way))
    except JobError as error:
        await _pause_job(process, batch, error)


async def _predict(batch: OpenBatch, model: PyfuncModel, rows: Sequence[Row]) -> None:
    batch.record(await predict_rows(model, rows))


async def _pause_job(process: Process, batch: OpenBatch, error: JobError) -> None:
    """The endpoint refuses every request: stop all of the job's batches and burn no rows."""
    job_id = batch.lease.job_id
    for other in process.open.values():
        if other.lease.job_id == job_id:
            other.sending.set(StopReason.PAUSED)
    if await process.patiently(partial(process.store.pause, job_id, str(error)), batch.holding):
        log.error(
            "job paused",
            extra={"event": "job_paused", "job_id": job_id, "reason": str(error)},
        )


async def _release(process: Process, batch: OpenBatch) -> BatchEnd:
    """Give the batch back with its checkpoint. A paused job's batches wait for ``resume``."""
    lease = batch.lease
    if process.settings.parent_pid is not None and batch.outcomes:
        # The embedded Redis ends with its parent: what was paid for is kept in the run as well.
        outcomes = list(batch.outcomes.values())
        await asyncio.to_thread(
            publish_part, process.runs, batch.spec, batch=lease.batch, outcomes=outcomes
        )
    await process.ledger.release(lease)
    if batch.sending.reason is not StopReason.PAUSED:
        await asyncio.to_thread(
            publish, process.app, lease.job_id, name=batch.spec.name, batches=[lease.batch]
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
    await process.patiently(
        partial(
            asyncio.to_thread,
            publish_part,
            process.runs,
            batch.spec,
            batch=batch.lease.batch,
            outcomes=list(batch.outcomes.values()),
        ),
        batch.holding,
    )


async def _count_off(process: Process, batch: OpenBatch) -> None:
    """Strike the batch off; after the last one, ask for the run to be finalized."""
    lease = batch.lease
    counted = await process.patiently(partial(process.ledger.count_off, lease), batch.holding)
    if counted is CountOff.LAST:
        # A worker that dies before this line loses the message, not the work: "final" is queued
        # in the ledger, and a reaper publishes it.
        await asyncio.to_thread(
            publish, process.app, lease.job_id, name=batch.spec.name, batches=[FINAL]
        )


def _log_end(batch: OpenBatch, end: BatchEnd, duration_s: float) -> None:
    verdicts = [outcome.verdict for outcome in batch.outcomes.values()]
    log.info(
        "batch ended",
        extra={
            "event": f"batch_{end}",
            "job_id": batch.lease.job_id,
            "batch": batch.lease.batch,
            "rows": len(verdicts),
            "succeeded": verdicts.count(Verdict.SUCCEEDED),
            "dead": sum(verdict.is_dead for verdict in verdicts),
            "duration_s": round(duration_s, 3),
        },
    )
