"""The claim of a batch on a message: the one that it names, or the one whose turn it is."""

from __future__ import annotations

from functools import partial

from flavor.errors import InputError
from worker.ledger import Refusal
from worker.open_batch import OpenBatch
from worker.process import Process

_OUTRUN = frozenset({str(Refusal.HELD), str(Refusal.DONE)})
"""What a batch says that was queued a moment ago: another message's worker has claimed it."""


async def claim_batch(process: Process, job_id: str, number: str) -> OpenBatch | str:
    """Claim the first batch that can be claimed, or say why the named one could not.

    Each message leads to a claim while anything is queued: one that led to none would leave its
    batch to the reaper, some lease later.

    Raises:
        InputError: this worker cannot read the job; it is paused.
        StoppedError: the process ends.
    """
    hint, refusal = (job_id, number), str(Refusal.DONE)
    process.is_any_neglected = False  # this message is for it
    candidates = partial(process.schedule.candidates, job_id, number)
    is_outrun = True
    while is_outrun:
        is_outrun = False
        for candidate in await process.patiently(candidates, process.stopping):
            claimed = await _claim_one(process, *candidate)
            if isinstance(claimed, OpenBatch):
                return claimed
            if candidate == hint:
                refusal = claimed
            elif claimed in _OUTRUN:  # whose message now finds its own batch gone, perhaps
                is_outrun = True
    return refusal


async def _claim_one(process: Process, job_id: str, number: str) -> OpenBatch | str:
    if (job_id, number) in process.open:
        return "an earlier delivery of it is still winding down here"
    try:
        spec = await process.patiently(partial(process.spec, job_id), process.stopping)
    except InputError as error:  # before the claim: there is nothing to give back
        await process.store.pause(job_id, str(error))
        raise
    if spec is None:
        return Refusal.GONE
    claim = partial(process.ledger.claim, job_id, number)
    lease = await process.patiently(claim, process.stopping)
    return lease if isinstance(lease, Refusal) else OpenBatch(lease, spec, meter=process.meter)
