"""``producer submit``."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import anyio
import click

from producer.exits import exit_status
from producer.intake import SubmitOptions
from producer.options import job_options, pilot_option, submit_values
from producer.preparing import prepare
from producer.progress import watch
from producer.reading import read_status
from producer.services import open_services
from producer.submission import enqueue
from worker.settings import read_settings


@click.command()
@job_options
@pilot_option
@click.option("--wait", is_flag=True, help="Stay, show the progress, end when the job ends.")
def submit(*, wait: bool, **values: Any) -> None:  # noqa: ANN401 - one per option
    """Enqueue a job for the workers on REDIS_URL. Prints the job's id, and nothing else.

    INPUT is a .jsonl, .csv, .tsv, .parquet or .txt file (a text a line), gzipped or not, a folder
    or a glob of them, or - for stdin.
    """
    options = SubmitOptions(**submit_values(values))
    sys.exit(anyio.run(partial(_submit, options, wait=wait)))


async def _submit(options: SubmitOptions, *, wait: bool) -> int:
    async with open_services(read_settings()) as services:
        async with prepare(services, options) as prepared:
            spec = await enqueue(services, prepared)
        click.echo(spec.job_id)
        if not wait:
            return 0
        return exit_status(await watch(partial(read_status, services, spec.job_id)))
