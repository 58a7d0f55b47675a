"""``producer jobs``."""

from __future__ import annotations

import json
import sys
from datetime import datetime

import anyio
import click
from rich.console import Console
from rich.table import Table

from producer.progress import money
from producer.reading import read_jobs
from producer.services import open_services
from worker.settings import read_settings
from worker.status import JobStatus

_PIPE_WIDTH = 240


@click.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON list of what status --json prints.")
def jobs(*, as_json: bool) -> None:
    """List the jobs that Redis or MLflow know, newest first."""
    found = anyio.run(_read)
    if as_json:
        click.echo(json.dumps([status.to_json() for status in found]))
    else:
        # In a pipe there is no width to fit: nothing shall be cut.
        console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
        console.print(_table(found))


async def _read() -> list[JobStatus]:
    async with open_services(read_settings()) as services:
        return await read_jobs(services)


def _table(found: list[JobStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("JOB", "NAME", "STATE", "CREATED"):
        table.add_column(name, no_wrap=name != "NAME", overflow="fold")
    for name in ("ROWS", "DEAD", "TOKENS", "COST"):
        table.add_column(name, justify="right", no_wrap=True)
    for status in found:
        created = datetime.fromtimestamp((status.created_ms or 0) / 1000)  # noqa: DTZ006 - for the person here
        table.add_row(
            status.job_id,
            status.name,
            status.state.value,
            f"{created:%Y-%m-%d %H:%M}",
            f"{status.rows_done:,}/{status.rows_total:,}",
            f"{status.rows_dead:,}",
            f"{status.tokens.total:,}",
            money(status.cost_usd),
        )
    return table
