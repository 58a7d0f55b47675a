"""An estimate as a table for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from producer.estimate import REQUESTS, Duration, Estimate, Measured, Range, Tokens
from producer.interval import CONFIDENCE, Interval
from producer.progress import duration, money
from worker.jobs import Limits


def estimate_table(found: Estimate) -> Table:
    """What ``producer estimate`` shows."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(found):
        table.add_row(name, Text(text))  # no markup: names of files and models may look like it
    return table


def _lines(found: Estimate) -> list[tuple[str, str]]:
    rows = f"{found.rows:,} of {found.input_name}"
    rows += f", {found.skipped:,} skipped" if found.skipped else ""
    if found.unsendable:
        rows += f", {found.unsendable:,} that do not fit the template and will be rejected"
    lines = [("rows", rows), ("model", found.model)]
    if found.requests is not None:
        lines.append(("requests", f"{found.requests:,}"))
    lines += _token_lines(found.tokens)
    cost = "unknown: no price is known (--price IN/OUT)"
    if found.tokens is not None:
        lines.append(("cost", _money(found.cost_usd) if found.cost_usd else cost))
        lines.append(("time", _time(found.duration, found.limits)))
    if found.pilot is not None:
        lines += _pilot_lines(found.pilot)
    return lines


def _token_lines(tokens: Tokens | None) -> list[tuple[str, str]]:
    if tokens is None:
        return [("tokens", "unknown: a pyfunc tells nothing of what it spends")]
    prompt = f"{tokens.counted:,} (counted with {tokens.counted_by})"
    if tokens.error:
        how = f"±{tokens.error:.0%}, estimated by {tokens.counted_by}: tiktoken's file is not here"
        prompt = f"about {tokens.counted:,} ({how})"
    return [
        ("tokens", _count(tokens.total)),
        ("  prompt", prompt),
        ("  completion", f"{_count(tokens.completion)} ({tokens.completion_by})"),
    ]


def _pilot_lines(pilot: Measured) -> list[tuple[str, str]]:
    lines = [("pilot", f"{pilot.job_id} ({pilot.state.value}), {pilot.rows:,} random rows")]
    if pilot.total is None:
        why = f": {pilot.reason}" if pilot.reason else ""
        return [*lines, ("", f"says nothing of all rows{why}")]
    lines += [
        ("tokens", f"{_likely(pilot.total)}, {CONFIDENCE:.0%} interval"),
        ("  prompt", _likely(pilot.prompt)),
        ("  completion", _likely(pilot.completion)),
    ]
    if pilot.cost_usd is not None:
        cost = pilot.cost_usd
        lines.append(("cost", f"{money(cost.estimate)} ({money(cost.low)} to {money(cost.high)})"))
    lines.append(("time", _time(pilot.duration, pilot.limits)))
    return [*lines, ("next", f"run or submit --pilot-of {pilot.job_id}: pays the other rows alone")]


def _time(found: Duration | None, limits: Limits) -> str:
    if found is None:
        return "unknown: no limits are given (--rpm and --tpm, or BATCH_RPM and BATCH_TPM)"
    seconds = found.seconds
    text = duration(seconds.low)
    if seconds.high > seconds.low:
        text += f" to {duration(seconds.high)}"
    bound = f"{limits.tokens_per_min:,} tokens"
    if found.bound_by == REQUESTS:
        bound = f"{limits.requests_per_min:,} requests"
    return f"at least {text}, at {bound} a minute"


def _money(cost: Range) -> str:
    low, high = money(cost.low), money(cost.high)
    return low if low == high else f"{low} to {high}"


def _count(found: Range) -> str:
    low, high = f"{found.low:,.0f}", f"{found.high:,.0f}"
    return low if low == high else f"{low} to {high}"


def _likely(found: Interval | None) -> str:
    if found is None:
        return "unknown"
    return f"{found.estimate:,.0f} ({found.low:,.0f} to {found.high:,.0f})"
