"""``producer watch``."""

from __future__ import annotations

import sys
from functools import partial

import anyio
import click

from producer.exits import exit_status
from producer.progress import summary_table
from producer.progress import watch as follow
from producer.reading import read_status
from producer.services import open_services
from producer.terminal import console
from worker.settings import read_settings
from worker.status import JobStatus


@click.command()
@click.argument("job_id", metavar="JOB")
def watch(job_id: str) -> None:
    """Follow a running job from anywhere; leaving does not stop it."""
    last = anyio.run(_watch, job_id)
    console(stderr=True).print(summary_table(last))
    sys.exit(exit_status(last))


async def _watch(job_id: str) -> JobStatus:
    async with open_services(read_settings()) as services:
        return await follow(partial(read_status, services, job_id))
