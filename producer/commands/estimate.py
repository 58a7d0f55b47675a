"""``producer estimate``."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import anyio
import click

from producer.estimate import Estimate, estimate_job
from producer.estimate_table import estimate_table
from producer.exits import exit_status
from producer.intake import SubmitOptions
from producer.local import LocalOptions
from producer.measure import measure
from producer.options import job_options, submit_values
from producer.terminal import console
from worker.settings import read_settings


@click.command()
@job_options
@click.option(
    "--pilot",
    type=click.IntRange(min=2),
    metavar="N",
    help="Send N random rows for real, and say what they tell of all.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    default=1,
    show_default=True,
    help="Of the pilot: worker processes to start; 0 where others serve REDIS_URL.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def estimate(*, pilot: int | None, workers: int, as_json: bool, **values: Any) -> None:  # noqa: ANN401 - one per option
    """Say what a job will take: rows, tokens, money, and time under the given limits.

    Sends nothing, unless --pilot says how many rows to try. Those are a job of their own;
    `submit --pilot-of JOB` then sends the others alone.

    INPUT is a .jsonl, .csv, .tsv, .parquet or .txt file (a text a line), gzipped or not, a folder
    or a glob of them, or - for stdin.
    """
    options = SubmitOptions(**submit_values(values))
    settings = read_settings()
    if pilot is None:
        _print(estimate_job(settings, options), as_json=as_json)
        return
    local = LocalOptions(workers=workers)
    found, status = anyio.run(partial(measure, settings, options, local, rows=pilot))
    _print(found, as_json=as_json)
    sys.exit(exit_status(status))


def _print(found: Estimate, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        console().print(estimate_table(found))
