"""The last unit of a job's work: its run is finalized by whoever claims ``final``.

Leased like a batch, so a finalizer that dies is replaced; what it has written is written again.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from flavor.errors import LeaseLostError
from worker.batch import BatchEnd, Delivery
from worker.jobs import FINAL, JobState
from worker.ledger import Refusal
from worker.open_batch import OpenBatch
from worker.process import Process
from worker.publish import finalize
from worker.runs import TAG_STATE
from worker.stop import StoppedError, StopReason

log = logging.getLogger(__name__)


async def run_final(process: Process, job_id: str) -> Delivery:
    """Finalize the run, and end the job in Redis. May be repeated by anybody at any point."""
    ended = partial(Delivery, name=job_id, batch=FINAL)
    if (job_id, FINAL) in process.open:
        return ended(end=BatchEnd.REFUSED, detail="it is being done here")
    try:
        spec = await process.patiently(partial(process.spec, job_id), process.stopping)
        claim = partial(process.ledger.claim, job_id, FINAL)
        lease = await process.patiently(claim, process.stopping)
    except StoppedError:
        process.too_late.add((job_id, FINAL))
        return ended(end=BatchEnd.REFUSED, detail=StopReason.SHUTDOWN)
    if isinstance(lease, Refusal) or spec is None:
        detail = lease if isinstance(lease, Refusal) else Refusal.GONE
        return ended(end=BatchEnd.REFUSED, detail=detail)
    ended = partial(ended, name=spec.name, rows=spec.rows)
    batch = OpenBatch(lease, spec)
    process.open[job_id, FINAL] = batch  # its lease is renewed with the others
    started_s = time.monotonic()
    try:
        state = await _end_job(process, batch)
    except (LeaseLostError, StoppedError):
        return ended(end=BatchEnd.LOST)
    finally:
        del process.open[job_id, FINAL]
    duration_s = round(time.monotonic() - started_s, 3)
    log.info(
        "job ended",
        extra={
            "event": f"job_{state.value}",
            "job_id": job_id,
            "rows": spec.rows,
            "duration_s": duration_s,
        },
    )
    return ended(end=BatchEnd.DONE, detail=state)


async def _end_job(process: Process, batch: OpenBatch) -> JobState:
    """Write the run's end, then the job's. Waits while MLflow or Redis is away."""
    job_id, lease = batch.lease.job_id, batch.lease
    if lease.deliveries > process.settings.max_deliveries:
        return await _give_up(process, batch)
    status = await process.patiently(partial(process.store.status, job_id), batch.holding)
    ending = await process.patiently(partial(process.store.ending, job_id), batch.holding)
    if status is None:
        raise LeaseLostError(f"job {job_id} is gone from Redis")
    write = partial(
        process.in_mlflow_thread,
        finalize,
        process.runs,
        batch.spec,
        status=status,
        ending=ending or JobState.COMPLETED,
    )
    state, totals = await process.patiently(write, batch.holding)
    finish = partial(process.ledger.finish, lease, state, totals.counts())
    await process.patiently(finish, batch.holding)
    return state


async def _give_up(process: Process, batch: OpenBatch) -> JobState:
    """A run that cannot be finalized ends as failed; its parts are there."""
    job_id = batch.lease.job_id
    log.error("job cannot be finalized", extra={"event": "final_set_aside", "job_id": job_id})
    await process.in_mlflow_thread(process.runs.set_tags, job_id, {TAG_STATE: "failed"})
    await process.in_mlflow_thread(process.runs.end, job_id, "FAILED")
    await process.ledger.finish(batch.lease, JobState.FAILED, {})
    return JobState.FAILED
