"""``producer cancel``."""

from __future__ import annotations

import anyio
import click

from producer.cancel import cancel_job
from producer.services import open_services
from worker.settings import read_settings


@click.command()
@click.argument("job_id", metavar="JOB")
def cancel(job_id: str) -> None:
    """Let the requests in flight finish and be kept; cancel the rows that were not sent."""
    anyio.run(_cancel, job_id)
    click.echo(f"cancelling {job_id}: its workers finish what is in flight", err=True)


async def _cancel(job_id: str) -> None:
    async with open_services(read_settings()) as services:
        await services.check_redis()
        await cancel_job(services, job_id)
