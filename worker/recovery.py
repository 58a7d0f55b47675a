"""What Redis has forgotten, or can no longer keep, stands in the run: outcomes go there and back.

*Rescued* are the outcomes of a batch whose job Redis has forgotten (it was wiped), whose embedded
Redis ends, or whose worker shall end while Redis is away. They go into files of their own: the
batch's part may be written meanwhile by whoever resumed the job. *Recalled* are the outcomes of a
batch that was done before Redis was restarted and lost its last writes.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from flavor.errors import TrackingError
from worker.jobs import FINAL, Outcome, Verdict
from worker.open_batch import OpenBatch
from worker.parts import part_name, read_outcomes, write_part
from worker.process import Process
from worker.run_files import parts_by_batch
from worker.runs import RESCUED

log = logging.getLogger(__name__)

PERIOD_S = 0.5
"""Between looks at what must be rescued: whoever resumes the job finds it in the run."""


async def rescue_regularly(process: Process) -> None:
    """Rescue what comes in for batches whose job Redis has forgotten, and what cannot be written
    while the process shall end: whoever stops it may not wait for Redis.
    """
    while True:
        await asyncio.sleep(PERIOD_S)
        is_last_chance = process.stopping.reason is not None and process.gate.is_closed
        for batch in list(process.open.values()):
            if batch.is_forgotten or is_last_chance:
                try:
                    await rescue(process, batch)
                except TrackingError as error:
                    log.warning(
                        "rescue delayed",
                        extra={"event": "rescue_delayed", "reason": str(error)},
                    )


async def rescue(process: Process, batch: OpenBatch) -> None:
    """Put the batch's outcomes so far into the run. A repeat overwrites them with more.

    Raises:
        TrackingError: MLflow is away.
    """
    outcomes = list(batch.outcomes.values())
    if batch.lease.batch == FINAL or len(outcomes) <= batch.rescued:
        return
    await process.in_mlflow_thread(_write, process, batch, outcomes)
    batch.rescued = len(outcomes)
    log.warning(
        "batch rescued",
        extra={
            "event": "batch_rescued",
            "job_id": batch.lease.job_id,
            "batch": batch.lease.batch,
            "rows": len(outcomes),
        },
    )


async def recall(process: Process, batch: OpenBatch) -> list[Outcome]:
    """The batch's successes that are in the run and not in the checkpoint.

    Only successes: whatever else an older part says of a row may be what ``resume`` or ``retry``
    is about, and is not paid for again.

    Raises:
        TrackingError: MLflow is away.
    """
    job_id, server = batch.lease.job_id, batch.lease.server
    if server is None:
        return []
    parts = process.listed_parts.get((job_id, server))
    if parts is None:  # once: what has been written since, this Redis knows
        parts = await process.in_mlflow_thread(parts_by_batch, process.runs, job_id)
        process.listed_parts[job_id, server] = parts
    paths = parts.get(int(batch.lease.batch), [])
    found = await process.in_mlflow_thread(_read, process, job_id, paths) if paths else []
    return [
        outcome
        for outcome in found
        if outcome.verdict is Verdict.SUCCEEDED and outcome.index not in batch.outcomes
    ]


def _write(process: Process, batch: OpenBatch, outcomes: Sequence[Outcome]) -> None:
    with tempfile.TemporaryDirectory(prefix="rescue-") as folder:
        path = Path(folder) / part_name(batch.lease.batch).replace(".", f"-{batch.token}.")
        write_part(path, outcomes, batch.spec.task)
        process.runs.log_file(batch.lease.job_id, path, RESCUED)


def _read(process: Process, job_id: str, paths: Sequence[str]) -> list[Outcome]:
    with tempfile.TemporaryDirectory(prefix="recall-") as folder:
        fetched = [process.runs.fetch(job_id, path, Path(folder)) for path in paths]
        return list({o.index: o for path in fetched for o in read_outcomes(path)}.values())
