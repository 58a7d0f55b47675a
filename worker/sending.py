"""A batch's rows through the process's slots: one piece of work is one request or ``predict``.

What a row goes through is ``worker.row``'s business; here it is decided which rows go together,
and what an error means for the batch and for the job.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from flavor.errors import JobError
from flavor.model import OpenAIModel, PyfuncModel
from flavor.types import Row
from worker.checkpoint import flush
from worker.jobs import Limits
from worker.open_batch import OpenBatch
from worker.packs import plan_packs
from worker.predict import predict_rows
from worker.process import Process
from worker.row import run_rows
from worker.slots import Work
from worker.stop import StoppedError, StopReason
from worker.trip import Way

log = logging.getLogger(__name__)


async def send_rows(process: Process, batch: OpenBatch, *, rows: Sequence[Row]) -> None:
    """Hand the rows without an outcome to the slots, and wait until all of them have ended."""
    todo = [row for row in rows if row.index not in batch.outcomes]
    if not todo or batch.sending.reason is not None:
        batch.arrive()
        return
    model = await process.patiently(partial(process.model, batch.spec), batch.holding)
    if isinstance(model, PyfuncModel):
        work = [partial(_predict, process, batch, model=model, rows=todo)]
    else:
        way = await _way(process, batch, model)
        packs, dead = plan_packs(todo, model)
        batch.record(dead)
        work = [partial(_send_pack, process, batch, way=way, pack=pack) for pack in packs]
    batch.expect(len(work))
    for item in work:
        process.slots.put(partial(_guarded, batch, item), job_id=batch.lease.job_id)
    try:
        await batch.idle()
    except BaseException:  # a row failed in a way nobody foresaw: the others are paid for
        await process.patiently(partial(flush, process, batch), batch.holding)
        raise


async def _way(process: Process, batch: OpenBatch, model: OpenAIModel) -> Way:
    client = await process.client()
    settings = process.settings
    limits = Limits(
        requests_per_min=batch.spec.limits.requests_per_min or settings.rpm,
        tokens_per_min=batch.spec.limits.tokens_per_min or settings.tpm,
    )
    lane = process.lanes.of(client.limit_key, model.openai_model, limits, job_id=batch.spec.job_id)
    allowance = process.allowances.of(batch.spec.job_id) if batch.lease.is_capped else None
    lane.spend(allowance, batch.spec.price)
    batch.lane = lane
    batch.breaker = process.breakers.of(client.limit_key, model.openai_model)
    return Way(
        model=model,
        client=client,
        limiter=lane,
        breaker=batch.breaker,
        gate=process.gate,
        stop=batch.sending,
        max_attempts=settings.max_attempts,
        deadline_s=settings.row_deadline_s,
        timeout_s=settings.request_timeout_s,
        price=batch.spec.price,
        tally=batch.pending,
        record=batch.record,
        trace=process.traces.of(batch.spec),
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


async def _predict(
    process: Process, batch: OpenBatch, *, model: PyfuncModel, rows: Sequence[Row]
) -> None:
    batch.record(
        await predict_rows(model, rows, threads=process.predict_threads, record=batch.record)
    )


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
