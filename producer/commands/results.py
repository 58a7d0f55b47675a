"""``producer results``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import click

from flavor.errors import InputError
from producer.answers import Answers
from producer.outcomes import View, open_outcomes
from producer.reading import read_spec_of
from producer.services import open_services
from producer.writing import ResultFormat, write_results
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
@click.option(
    "--columns",
    multiple=True,
    metavar="NAME,…",
    help="Only these, in this order. [default: all of the input's and all of the outcome's]",
)
@click.option("--failed", is_flag=True, help="Only dead rows.")
@click.option(
    "--json-columns",
    is_flag=True,
    help="Spread answers that are JSON objects into columns; json_error says where one is none.",
)
def results(
    job_id: str,
    *,
    output: Path | None,
    form: str | None,
    columns: Sequence[str],
    failed: bool,
    json_columns: bool,
) -> None:
    """The outcomes of a job beside its input, in the input's order.

    Of a running job, the rows of the batches that are done so far.
    """
    view = View(columns=_names(columns), only_failed=failed, has_json_columns=json_columns)
    chosen = ResultFormat(form) if form else _format_of(output)
    anyio.run(partial(_write, job_id, view, to=output, form=chosen))


def _names(columns: Sequence[str]) -> list[str]:
    """``--columns a,b --columns c`` are three names."""
    return [name.strip() for group in columns for name in group.split(",") if name.strip()]


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


async def _write(job_id: str, view: View, *, to: Path | None, form: ResultFormat) -> None:
    async with open_services(read_settings()) as services:
        spec = await read_spec_of(services, job_id)
        with open_outcomes(services.runs, spec, view) as outcomes:
            count = write_results(outcomes, to=to, form=form)
            answers = outcomes.answers
    of = None if view.only_failed or count == spec.rows else spec.rows
    for line in _said(count, of=of, answers=answers):
        click.echo(line, err=True)


def _said(count: int, *, of: int | None, answers: Answers | None) -> list[str]:
    lines = [f"{count:,} rows"]
    if of is not None:
        lines = [f"{count:,} of {of:,} rows: the others have no outcome in the run yet"]
    if answers is not None and answers.unparsed:
        more = ", …" if answers.unparsed > len(answers.unparsed_ids) else ""
        rows = ", ".join(answers.unparsed_ids) + more
        lines.append(f"{answers.unparsed:,} answers are no JSON objects (see json_error): {rows}")
    return lines
