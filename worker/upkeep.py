"""What a process does beside its batches: renew leases, tell how it stands, reap.

Each loop survives an outage of Redis or MLflow: it logs, and looks again at its next turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from flavor.errors import BatchError, StoreError, TrackingError
from worker.broker import publish, queue_length
from worker.gate import Duty
from worker.jobs import JobState, ahead
from worker.ledger import Renewal
from worker.open_batch import OpenBatch
from worker.process import Process
from worker.reports import Report
from worker.stop import StopReason

log = logging.getLogger(__name__)

BEAT_S = 1.0
"""Between renewals: far below any lease, since a renewal also tells of pauses and cancellations."""

LOOK_S = 0.3
"""Between looks for jobs that nobody has begun."""

DRAFT_SILENT_MS = 600_000
"""A draft whose producer has not written for so long is thrown away."""

MOST_AT_ONCE = 100
"""Of messages that seem lost, so many are published in one turn."""


async def beat_regularly(process: Process) -> None:
    """Renew the leases of all open batches, and tell how the process stands.

    Nothing slow may stand in this loop: a lease that is not renewed is lost, and its rows are paid
    for again.
    """
    while True:
        await asyncio.sleep(BEAT_S)
        if process.open or process.meter.recent:
            await tolerant(_beat, process)


async def look_regularly(process: Process) -> None:
    """See whether a job waits that no worker has begun: it need not wait for a free slot."""
    while True:
        await asyncio.sleep(LOOK_S)
        if process.slots.waiting >= process.slots.size:  # else messages are taken anyway
            await tolerant(_look, process)
        else:
            process.is_any_neglected = False


async def _look(process: Process) -> None:
    process.is_any_neglected = await process.schedule.is_any_neglected()


async def _beat(process: Process) -> None:
    batches = list(process.open.values())
    with process.gate.watched(Duty.LEASE):
        await process.ledger.pulse()
        leases = [batch.lease for batch in batches]
        renewals = await process.ledger.renew(leases) if leases else []
    for batch, renewal in zip(batches, renewals, strict=True):
        if not renewal.is_held:
            batch.is_forgotten = renewal.state is None
            batch.lose()
        elif (reason := _stop_reason(renewal)) is not None:
            batch.sending.set(reason)
    await _report(process)
    await process.breakers.look()


async def _report(process: Process) -> None:
    """Tell of every job that the process works on, and once more when it has stopped to."""
    for job_id, recent in list(process.meter.recent.items()):
        mine = [batch for batch in process.open.values() if batch.lease.job_id == job_id]
        if not mine and recent.is_over:
            del process.meter.recent[job_id]
        report = Report(
            in_flight=_in_flight(mine),
            waiting_for=next((b.waiting_for for b in mine if b.waiting_for), ""),
            rows_per_s=recent.rows_per_s,
            latencies=recent.latencies,
        )
        await process.store.report(job_id, process.name, report=report)


def _in_flight(batches: Sequence[OpenBatch]) -> int:
    """Requests that wait for nothing but their answers; of a pyfunc, calls."""
    lanes = {batch.lane for batch in batches if batch.lane}
    calls = sum(batch.in_flight for batch in batches if batch.lane is None)
    return calls + sum(lane.in_flight for lane in lanes)


def _stop_reason(renewal: Renewal) -> StopReason | None:
    if renewal.ending is JobState.CANCELLED:
        return StopReason.CANCELLED
    if renewal.state is JobState.PAUSED:
        return StopReason.PAUSED
    return None


async def reap_regularly(process: Process) -> None:
    """Publish again what nobody works on: batches of dead workers, and lost messages."""
    while True:
        await asyncio.sleep(process.settings.lease_s / 6)
        await tolerant(_reap, process)


async def _reap(process: Process) -> None:
    await process.ledger.pulse()
    await _discard_dead_drafts(process)
    jobs = await process.store.active_jobs()
    if not jobs:
        return
    messages = await asyncio.to_thread(queue_length, process.app)
    missing = await process.ledger.queued(jobs) - messages
    for job_id in jobs:
        batches = await process.ledger.expired(job_id)
        if missing > 0:
            unheard = await process.ledger.unheard(job_id, min(missing, MOST_AT_ONCE))
            missing -= len(unheard)
            batches += unheard
        spec = await process.spec(job_id) if batches else None
        if spec is not None:
            await asyncio.to_thread(
                publish,
                process.app,
                job_id,
                name=spec.name,
                batches=await process.store.row_counts(job_id, sorted(set(batches))),
                priority=ahead(spec.priority),
            )
            log.warning(
                "batches published again",
                extra={"event": "batches_republished", "job_id": job_id, "batches": len(batches)},
            )


async def _discard_dead_drafts(process: Process) -> None:
    """Throw away what a producer left half written when it died: nobody was given that job's id."""
    for job_id in await process.store.dead_drafts(DRAFT_SILENT_MS):
        spec = await process.store.spec(job_id)
        await process.store.discard(job_id, spec.batches if spec else 0)
        await process.in_mlflow_thread(process.runs.end, job_id, "FAILED")
        log.warning("draft discarded", extra={"event": "draft_discarded", "job_id": job_id})


_T = TypeVar("_T")


async def tolerant(step: Callable[[_T], Awaitable[None]], subject: _T) -> bool:
    """One turn of a loop that no outage ends: what fails is logged, and done at the next turn.

    Returns whether it was done.
    """
    try:
        await step(subject)
    except (StoreError, TrackingError) as error:
        log.warning("upkeep delayed", extra={"event": "upkeep_delayed", "reason": str(error)})
    except BatchError as error:
        log.error("upkeep failed", extra={"event": "upkeep_failed", "reason": str(error)})
    else:
        return True
    return False
