"""``producer resume`` and ``producer retry``: the same way again, for other rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import click

from producer.exits import exit_status
from producer.local import LocalOptions, resume_locally
from producer.progress import watch
from producer.reading import read_status
from producer.resume import RESUMED, RETRIED, resume_job
from producer.services import open_services
from producer.summary import print_summary
from worker.jobs import Verdict
from worker.settings import Settings, read_settings


def _options(command: Callable[..., None]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--workers",
            type=click.IntRange(1, 64),
            default=1,
            show_default=True,
            help="Worker processes to start, where REDIS_URL is not set.",
        ),
        click.option("--wait", is_flag=True, help="With REDIS_URL: stay until the job ends."),
        click.argument("job_id", metavar="JOB"),
    ):
        command = option(command)
    return command


@click.command()
@_options
def resume(job_id: str, *, wait: bool, workers: int) -> None:
    """Continue a paused, cancelled or interrupted job: send the rows without an outcome.

    Works with Redis wiped, from the run alone. Without REDIS_URL this machine does it, as
    `producer run` would.
    """
    _again(job_id, RESUMED, wait=wait, workers=workers)


@click.command()
@_options
def retry(job_id: str, *, wait: bool, workers: int) -> None:
    """Send a finished job's dead rows again, and merge their outcomes into the same run."""
    _again(job_id, RETRIED, wait=wait, workers=workers)


def _again(job_id: str, redo: frozenset[Verdict], *, wait: bool, workers: int) -> None:
    settings = read_settings()
    if settings.has_redis:
        sys.exit(anyio.run(partial(_enqueue, settings, job_id, redo, wait=wait)))
    local = LocalOptions(workers=workers)
    result = anyio.run(partial(resume_locally, settings, job_id, local, redo=redo))
    print_summary(result)
    sys.exit(exit_status(result.status))


async def _enqueue(settings: Settings, job_id: str, redo: frozenset[Verdict], *, wait: bool) -> int:
    async with open_services(settings) as services:
        await resume_job(services, job_id, redo=redo)
        click.echo(job_id)
        if not wait:
            return 0
        return exit_status(await watch(partial(read_status, services, job_id)))
