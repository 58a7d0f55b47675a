"""``producer results``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anyio
import click

from flavor.errors import InputError
from producer.outcomes import ResultFormat, read_results, write_results
from producer.reading import read_spec_of
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
    chosen = ResultFormat(form) if form else _format_of(output)
    count = anyio.run(partial(_write, job_id, to=output, form=chosen, only_failed=failed))
    click.echo(f"{count:,} rows", err=True)


def _format_of(output: Path | None) -> ResultFormat:
    suffix = output.suffix[1:].lower() if output else ""
    if not suffix:
        return ResultFormat.JSONL
    try:
        return ResultFormat(suffix)
    except ValueError:
        known = ", ".join(ResultFormat)
        raise InputError(
            f"{output}: no format is called {suffix!r}; add --format: {known}"
        ) from None


async def _write(job_id: str, *, to: Path | None, form: ResultFormat, only_failed: bool) -> int:
    async with open_services(read_settings()) as services:
        spec = await read_spec_of(services, job_id)
        rows = read_results(services.runs, spec, only_failed=only_failed)
        return write_results(rows, spec, to=to, form=form)
