"""``producer status``."""

from __future__ import annotations

import json

import anyio
import click

from producer.progress import summary_table
from producer.reading import read_status
from producer.services import open_services
from producer.terminal import console
from worker.settings import read_settings
from worker.status import JobStatus


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(job_id: str, *, as_json: bool) -> None:
    """How a job stands: from Redis while it runs, from its MLflow run afterwards."""
    found = anyio.run(_read, job_id)
    if as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        console().print(summary_table(found))


async def _read(job_id: str) -> JobStatus:
    async with open_services(read_settings()) as services:
        return await read_status(services, job_id)
