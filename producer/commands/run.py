"""``producer run``."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import click

from producer.exits import exit_status
from producer.intake import SubmitOptions
from producer.local import LocalOptions, run_locally
from producer.options import job_options, pilot_option, submit_values
from producer.summary import print_summary
from worker.settings import read_settings


@click.command()
@job_options
@pilot_option
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    default=1,
    show_default=True,
    help="Worker processes to start; 0 where others serve REDIS_URL.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 4096),
    metavar="N",
    help="Requests in flight per worker. [default: BATCH_CONCURRENCY or 256]",
)
def run(*, workers: int, concurrency: int | None, **values: Any) -> None:  # noqa: ANN401 - one per option
    """Run a job on this machine and wait for it: workers, and Redis unless REDIS_URL is set.

    INPUT is a .jsonl, .csv, .tsv, .parquet or .txt file (a text a line), gzipped or not, a folder
    or a glob of them, or - for stdin.
    """
    options = SubmitOptions(**submit_values(values))
    local = LocalOptions(workers=workers, concurrency=concurrency)
    result = anyio.run(run_locally, read_settings(), options, local)
    print_summary(result)
    sys.exit(exit_status(result.status))
