"""The last unit of a job's work: its run is finalized by whoever claims ``final``.

Leased like a batch, so a finalizer that dies is replaced; what it has written is written again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

from flavor.errors import LeaseLostError
from worker.batch import BatchEnd
from worker.jobs import FINAL, JobState
from worker.ledger import Refusal
from worker.open_batch import OpenBatch
from worker.process import Process
from worker.publish import finalize
from worker.stop import Stop, StoppedError

log = logging.getLogger(__name__)


async def run_final(process: Process, job_id: str) -> BatchEnd:
    """Finalize the run, and end the job in Redis. May be repeated by anybody at any point."""
    lease = await process.patiently(partial(process.ledger.claim, job_id, FINAL), Stop())
    spec = await process.spec(job_id)
    if isinstance(lease, Refusal) or spec is None:
        return BatchEnd.REFUSED
    batch = OpenBatch(lease, spec)
    process.open[job_id, FINAL] = batch  # its lease is renewed with the others
    started_s = time.monotonic()
    try:
        status = await process.patiently(partial(process.store.status, job_id), batch.holding)
        ending = await process.patiently(partial(process.store.ending, job_id), batch.holding)
        if status is None:
            return BatchEnd.LOST
        state, totals = await process.patiently(
            partial(
                asyncio.to_thread,
                finalize,
                process.runs,
                spec,
                status=status,
                ending=ending or JobState.COMPLETED,
            ),
            batch.holding,
        )
        await process.patiently(
            partial(process.ledger.finish, lease, state, totals.counts()), batch.holding
        )
    except (LeaseLostError, StoppedError):
        return BatchEnd.LOST
    finally:
        del process.open[job_id, FINAL]
    log.info(
        "job ended",
        extra={
            "event": f"job_{state.value}",
            "job_id": job_id,
            "rows": spec.rows,
            "duration_s": round(time.monotonic() - started_s, 3),
        },
    )
    return BatchEnd.DONE
