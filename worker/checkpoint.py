"""How outcomes get into Redis: soon after they came, and before their batch's part is written.

So whoever takes the batch over writes the same part. Vectors alone may go into the part first, and
are counted off with their batch: they are many bytes, and an API that is asked again for one
answers with the same.
"""

from __future__ import annotations

import asyncio
import time

from flavor.errors import LeaseLostError
from flavor.types import Task
from worker.gate import Duty
from worker.jobs import Verdict
from worker.ledger import CountOff
from worker.open_batch import OpenBatch
from worker.pending import Pending
from worker.process import Process
from worker.upkeep import tolerant

FLUSH_S = 0.05
"""Between looks for what is due: a text is in Redis within this and one round trip."""

VECTORS_S = 0.2
"""A vector is due so long after it came. At full rate most of them are in the run by then: to write
these into Redis, where they are deleted at once, took a fifth of all CPU."""

FAILED_S = 0.5
"""After a checkpoint that could not be written, until the next try: an outage fills no log."""


async def flush_regularly(process: Process) -> None:
    """Write what is due since the last turn."""
    while True:
        await asyncio.sleep(FLUSH_S)
        is_wanted = process.gate.is_closed or _due(process)
        if is_wanted and not await tolerant(flush, process):
            await asyncio.sleep(FAILED_S)


async def flush(process: Process, of: OpenBatch | None = None) -> None:
    """Write the outcomes that are due, and all of one batch, in one round trip.

    Nothing is written where that batch has none any more once it is the caller's turn: many batches
    end together, and the first of them has written for all.

    Raises:
        StoreError: Redis is away; the outcomes are kept and written with the next call.
    """
    async with process.flush_lock:
        if of is not None and not of.pending:
            return
        batches = [batch for batch in _due(process) if batch is not of]
        batches += [of] if of is not None else []
        taken = [batch.pending.take() for batch in batches]
        try:
            held = await _write(process, batches, taken)
        except BaseException:
            for batch, pending in zip(batches, taken, strict=True):
                batch.pending.put_back(pending)
            raise
        for batch, pending, is_held in zip(batches, taken, held, strict=True):
            _written(process, batch, pending)
            if not is_held:
                batch.lose()


async def secure(process: Process, batch: OpenBatch) -> None:
    """Let nothing be lost that a batch has when its rows were sent: write what waits into Redis.

    Not where that is vectors which go into the part now. Then the batch must be ours still: a
    worker that was away for longer than its lease must not write over the part of the next one.

    Raises:
        StoreError: Redis is away; the outcomes are kept and written with the next call.
    """
    if _goes_straight_into_its_part(batch):
        (renewal,) = await process.ledger.renew([batch.lease])
        if renewal.is_held:
            return
    await flush(process, batch)


async def count_off(process: Process, batch: OpenBatch) -> CountOff:
    """Strike a batch off whose part is in the run, with all that waits for its checkpoint.

    Raises:
        LeaseLostError: somebody else has the batch, or it was struck off before.
        StoreError: Redis is away; what waited goes on waiting.
    """
    async with process.flush_lock:  # what is being written may fail, and waits again then
        taken = batch.pending.take()
    try:
        # It takes no room in Redis, so that it succeeds tells nothing of a checkpoint.
        with process.gate.watched(Duty.CHECKPOINT, is_proof=False):
            counted = await process.ledger.count_off(batch.lease, taken)
    except LeaseLostError:
        _written(process, batch, taken)
        raise
    except BaseException:
        batch.pending.put_back(taken)
        raise
    _written(process, batch, taken)
    return counted


def _goes_straight_into_its_part(batch: OpenBatch) -> bool:
    """Whether it has all its outcomes, no stop is in its way, and nothing but vectors waits."""
    return (
        batch.spec.task is Task.EMBEDDINGS
        and batch.holding.reason is None
        and len(batch.outcomes) == batch.rows
        # A dead row that another worker sends again may live.
        and all(one.verdict is Verdict.SUCCEEDED for one in batch.pending.outcomes)
    )


def _due(process: Process) -> list[OpenBatch]:
    now_s = time.monotonic()
    return [batch for batch in process.open.values() if batch.pending and _is_due(batch, now_s)]


def _is_due(batch: OpenBatch, now_s: float) -> bool:
    """Also where only requests are to be counted: that takes next to nothing."""
    wait_s = VECTORS_S if batch.spec.task is Task.EMBEDDINGS else 0.0
    return not batch.pending.outcomes or now_s - batch.pending.since_s >= wait_s


async def _write(process: Process, batches: list[OpenBatch], taken: list[Pending]) -> list[bool]:
    pairs = [(batch.lease, pending) for batch, pending in zip(batches, taken, strict=True)]
    with process.gate.watched(Duty.CHECKPOINT):
        if process.gate.is_closed:  # to encode it all for each try took a core until Redis was back
            await process.ledger.pulse()
        return await process.ledger.checkpoint(pairs) if pairs else []


def _written(process: Process, batch: OpenBatch, pending: Pending) -> None:
    """The job's counts in Redis have this; or never will, where the lease is lost."""
    if batch.lane is not None:  # not the batch's own cap: a resume may have set one since
        batch.lane.written(pending.outcomes)
    process.meter.count_requests(
        sent=pending.sent,
        answered=pending.answered,
        retried=pending.retried,
        throttled=pending.throttled,
    )
