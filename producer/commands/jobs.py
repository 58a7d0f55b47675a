"""``producer jobs``."""

from __future__ import annotations

import json
from datetime import datetime

import anyio
import click
from rich.table import Table

from producer.progress import money
from producer.reading import read_jobs
from producer.services import open_services
from producer.terminal import console
from worker.settings import read_settings
from worker.status import JobStatus

_COLUMNS = ("JOB", "NAME", "STATE", "CREATED", "ROWS", "DEAD", "TOKENS", "COST")
_NUMBERS = frozenset(("ROWS", "DEAD", "TOKENS", "COST"))
_SPARED = ("CREATED", "TOKENS", "DEAD", "COST", "NAME")
"""Left out in this order where the terminal is narrow; what is left identifies a job."""

_SHORTEST_NAME = 16


@click.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON list of what status --json prints.")
def jobs(*, as_json: bool) -> None:
    """List the jobs that Redis or MLflow know, newest first."""
    found = anyio.run(_read)
    if as_json:
        click.echo(json.dumps([status.to_json() for status in found]))
    else:
        shown_on = console()
        shown_on.print(_table(found, width=shown_on.width))


async def _read() -> list[JobStatus]:
    async with open_services(read_settings()) as services:
        return await read_jobs(services)


def _table(found: list[JobStatus], *, width: int) -> Table:
    """The jobs, without those columns for which there is no room: half a number tells nothing."""
    rows = [_cells(status) for status in found]
    needed = {
        name: max(len(name), *(len(row[name]) for row in rows)) if rows else len(name)
        for name in _COLUMNS
    }
    needed["NAME"] = min(needed["NAME"], _SHORTEST_NAME)
    shown = list(_COLUMNS)
    for name in _SPARED:
        if sum(needed[column] + 2 for column in shown) - 2 > width:
            shown.remove(name)
    table = Table(box=None, pad_edge=False)
    others = sum(needed[name] + 2 for name in shown if name != "NAME")
    for name in shown:
        table.add_column(
            name,
            justify="right" if name in _NUMBERS else "left",
            no_wrap=True,
            min_width=None if name == "NAME" else needed[name],
            max_width=max(_SHORTEST_NAME, width - others) if name == "NAME" else None,
        )
    for row in rows:
        table.add_row(*(row[name] for name in shown))
    return table


def _cells(status: JobStatus) -> dict[str, str]:
    created = datetime.fromtimestamp((status.created_ms or 0) / 1000)  # noqa: DTZ006 - for the person here
    return {
        "JOB": status.job_id,
        "NAME": status.name,
        "STATE": status.state.value,
        "CREATED": f"{created:%Y-%m-%d %H:%M}",
        "ROWS": f"{status.rows_done:,}/{status.rows_total:,}",
        "DEAD": f"{status.rows_dead:,}",
        "TOKENS": f"{status.tokens.total:,}" if status.has_usage else "unknown",
        "COST": money(status.cost_usd),
    }
