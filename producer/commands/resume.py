"""``producer resume`` and ``producer retry``: the same way again, for other rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import click

from producer.exits import exit_status
from producer.local import LocalOptions, Start, resume_locally
from producer.options import cap_options
from producer.progress import watch
from producer.reading import read_status
from producer.resume import RESUMED, RETRIED, resume_job
from producer.services import open_services
from producer.summary import print_summary
from worker.jobs import Cap, Verdict
from worker.settings import Settings, read_settings


def _options(command: Callable[..., None]) -> Callable[..., Any]:
    for option in (
        *cap_options,
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
def resume(job_id: str, **options: Any) -> None:  # noqa: ANN401 - one per option
    """Continue a paused, cancelled or interrupted job: send the rows without an outcome.

    Works with Redis wiped, from the run alone. Without REDIS_URL this machine does it, as
    `producer run` would.
    """
    _again(job_id, RESUMED, **options)


@click.command()
@_options
def retry(job_id: str, **options: Any) -> None:  # noqa: ANN401 - one per option
    """Send a finished job's dead rows again, and merge their outcomes into the same run."""
    _again(job_id, RETRIED, **options)


def _again(
    job_id: str,
    redo: frozenset[Verdict],
    *,
    wait: bool,
    workers: int,
    max_cost: float | None,
    max_total_tokens: int | None,
) -> None:
    settings = read_settings()
    start = partial(
        resume_job,
        job_id=job_id,
        redo=redo,
        cap=Cap(total_tokens=max_total_tokens, cost_usd=max_cost),
    )
    if settings.has_redis:
        sys.exit(anyio.run(partial(_enqueue, settings, start, wait=wait)))
    local = LocalOptions(workers=workers)
    result = anyio.run(partial(resume_locally, settings, job_id, local, start=start))
    print_summary(result)
    sys.exit(exit_status(result.status))


async def _enqueue(settings: Settings, start: Start, *, wait: bool) -> int:
    async with open_services(settings) as services:
        job_id = (await start(services)).job_id
        click.echo(job_id)
        if not wait:
            return 0
        return exit_status(await watch(partial(read_status, services, job_id)))
