"""``producer results``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anyio
import click

from producer.reading import read_spec_of
from producer.results import ResultFormat, read_results, write_results
from producer.services import open_services
from worker.settings import read_settings


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="[default: stdout]"
)
@click.option(
    "--format",
    "form",
    type=click.Choice([f.value for f in ResultFormat]),
    help="[default: the output file's suffix, else jsonl]",
)
@click.option("--failed", is_flag=True, help="Only dead rows.")
def results(job_id: str, *, output: Path | None, form: str | None, failed: bool) -> None:
    """The outcomes of a job, in the input's order; of a running job, those published so far."""
    suffix = output.suffix.lstrip(".") if output else ""
    chosen = form or (suffix if suffix in set(ResultFormat) else ResultFormat.JSONL)
    count = anyio.run(
        partial(_write, job_id, to=output, form=ResultFormat(chosen), only_failed=failed)
    )
    click.echo(f"{count:,} rows", err=True)


async def _write(job_id: str, *, to: Path | None, form: ResultFormat, only_failed: bool) -> int:
    async with open_services(read_settings()) as services:
        spec = await read_spec_of(services, job_id)
        rows = read_results(services.runs, spec, only_failed=only_failed)
        return write_results(rows, spec, to=to, form=form)
