"""Cancelling a job: its workers hear of it within a second, and work its batches off unsent."""

from __future__ import annotations

import asyncio

from producer.reading import read_spec_of
from producer.services import Services
from worker.broker import publish


async def cancel_job(services: Services, job_id: str) -> None:
    """Ask for the end of a job. Returns at once; the job ends when what is in flight has ended.

    Raises:
        InputError: the job is unknown, or has ended.
    """
    spec = await read_spec_of(services, job_id)
    await services.store.cancel(job_id)
    # A paused job's messages are gone; a duplicate of any other is refused by the ledger.
    batches = await services.store.unclaimed(job_id)
    await asyncio.to_thread(publish, services.app, job_id, name=spec.name, batches=batches)
