"""``producer verify``."""

from __future__ import annotations

import asyncio
import json

import anyio
import click

from producer.services import open_services
from producer.verify import Finding, Verification, verify_job
from worker.settings import read_settings

VERIFY_FILE = "verify.json"
TAG_VERIFIED = "batch.verified"


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def verify(ctx: click.Context, job_id: str, *, as_json: bool) -> None:
    """Read an ended job's input and outputs again: does each row have exactly one outcome?

    Also whether the run's totals are the sums of its outcomes, and how many rows may have been
    paid twice. The result is logged with the run (verify.json). Exit status 1 where it does not
    hold.
    """
    found = anyio.run(_verify, job_id)
    if as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        for line in _lines(found):
            click.echo(line)
    if not found.holds:
        ctx.exit(1)


async def _verify(job_id: str) -> Verification:
    async with open_services(read_settings()) as services:
        found = await asyncio.to_thread(verify_job, services.runs, job_id)
        text = json.dumps(found.to_json(), indent=2)
        await asyncio.to_thread(services.runs.log_text, job_id, VERIFY_FILE, text)
        verdict = {TAG_VERIFIED: str(found.holds).lower()}
        await asyncio.to_thread(services.runs.set_tags, job_id, verdict)
        return found


def _lines(found: Verification) -> list[str]:
    how = "" if found.is_input_compared else " (by their place: the input was not logged)"
    lines = [f"rows      {found.rows:,}, outcomes {found.outcomes:,}{how}"]
    lines += _said("without an outcome", found.without_outcome)
    lines += _said("with several outcomes", found.with_several)
    lines += _said("outcomes of no row", found.unknown)
    if found.wrong_totals:
        lines += [
            f"totals    {name}: the run says {logged}, the outcomes sum up to {total}"
            for name, (logged, total) in found.wrong_totals.items()
        ]
    else:
        lines.append("totals    the run's metrics are the sums of its outcomes")
    lines.append(f"requests  {found.requests_sent:,} sent, {_paid_twice(found.rows_in_doubt)}")
    lines.append("verified: one outcome per row" if found.holds else "NOT verified")
    return lines


def _paid_twice(in_doubt: int | None) -> str:
    if in_doubt is None:
        return "and the run does not say how many rows may have been paid twice"
    return f"between 0 and {in_doubt:,} rows paid twice" if in_doubt else "no row paid twice"


def _said(what: str, finding: Finding) -> list[str]:
    if not finding.count:
        return []
    shown = ", ".join(finding.row_ids)
    more = ", …" if finding.count > len(finding.row_ids) else ""
    return [f"          {finding.count:,} {what}: {shown}{more}"]
