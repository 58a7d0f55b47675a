"""How a job goes on, for people: a live display in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Awaitable, Callable

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flavor.errors import InputError, StoreError
from producer.terminal import console
from worker.jobs import JobState, Verdict
from worker.status import JobStatus

PERIOD_S = 0.5
LINE_EVERY_S = 5.0

ReadStatus = Callable[[], Awaitable[JobStatus | None]]


async def watch(read: ReadStatus, *, each: Callable[[], None] = lambda: None) -> JobStatus:
    """Show the job until it ends or pauses; returns its last status. To stderr.

    ``each`` is called at every look. A Redis that is away is waited for.

    Raises:
        InputError: nobody knows the job.
    """
    shown_on = console(stderr=True)
    if shown_on.is_terminal:
        with Live(console=shown_on, refresh_per_second=4, transient=True) as live:
            return await _follow(read, each, lambda status: live.update(_display(status)))
    printer = _LinePrinter()
    return await _follow(read, each, printer.show)


async def _follow(
    read: ReadStatus, each: Callable[[], None], show: Callable[[JobStatus], None]
) -> JobStatus:
    while True:
        each()
        try:
            status = await read()
        except StoreError:  # Redis restarts: the job goes on by itself when it is back
            await asyncio.sleep(PERIOD_S)
            continue
        if status is None:
            raise InputError("the job is unknown to Redis and MLflow")
        show(status)
        if status.state.is_final or status.state is JobState.PAUSED:
            return status
        await asyncio.sleep(PERIOD_S)


class _LinePrinter:
    """Plain lines: when something changed, and not too often."""

    def __init__(self) -> None:
        self._shown_s = 0.0
        self._state: JobState | None = None

    def show(self, status: JobStatus) -> None:
        now_s = time.monotonic()
        if status.state is self._state and now_s - self._shown_s < LINE_EVERY_S:
            return
        self._shown_s, self._state = now_s, status.state
        print(progress_line(status), file=sys.stderr, flush=True)  # noqa: T201 - this is the display


def progress_line(status: JobStatus) -> str:
    """The job in one line: state, rows, rate, tokens, money, what it waits for."""
    parts = [
        f"{status.state.value}: {status.rows_done:,} of {status.rows_total:,} rows",
        f"{status.rows_dead:,} dead",
        f"{status.rows_per_s:,.0f} rows/s",
        _tokens(status),
        money(status.cost_usd),
    ]
    if status.eta_s is not None:
        parts.append(f"{duration(status.eta_s)} left")
    if status.waiting_for:
        parts.append(f"waiting for {status.waiting_for}")
    return ", ".join(parts)


def _display(status: JobStatus) -> Group:
    facts = Table.grid(padding=(0, 3))
    facts.add_row(
        Text.assemble((f"{status.rows_done:,}", "bold"), f" of {status.rows_total:,} rows"),
        f"{status.rows_per_s:,.0f} rows/s",
        _tokens(status),
        money(status.cost_usd),
        f"{status.requests.in_flight} in flight",
        f"{duration(status.eta_s)} left" if status.eta_s is not None else "",
    )
    notes = Text()
    if status.rows_dead:
        notes.append(f"{status.rows_dead:,} dead rows  ", style="red")
    if status.waiting_for:
        notes.append(f"waiting for {status.waiting_for}", style="yellow")
    bar = Table.grid()  # a bar ends no line by itself
    bar.add_row(ProgressBar(total=max(1, status.rows_total), completed=status.rows_done, width=60))
    title = Text(f"{status.name}  {status.state.value}", style="bold")
    return Group(title, bar, facts, notes)


def summary_table(status: JobStatus) -> Table:
    """A job's figures as a table for the terminal."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("job", status.job_id)
    table.add_row("name", status.name)
    table.add_row("state", status.state.value + (f" ({status.reason})" if status.reason else ""))
    rows = [f"{status.rows_done:,} of {status.rows_total:,}"]
    rows += [f"{n:,} {v.value}" for v, n in status.rows.items() if n or v is Verdict.SUCCEEDED]
    table.add_row("rows", ", ".join(rows))
    tokens = status.tokens
    split = f" ({tokens.prompt:,} prompt, {tokens.completion:,} completion)"
    table.add_row(
        "tokens", _tokens(status).removesuffix(" tokens") + (split if status.has_usage else "")
    )
    table.add_row("cost", money(status.cost_usd))
    requests = status.requests
    table.add_row(
        "requests",
        f"{requests.sent:,} sent, {requests.retried:,} retried, {requests.throttled:,} throttled",
    )
    if status.started_ms and status.finished_ms:
        elapsed_s = (status.finished_ms - status.started_ms) / 1000
        table.add_row("time", f"{duration(elapsed_s)}, {status.rows_per_s:,.0f} rows/s")
    if status.waiting_for:
        table.add_row("waiting for", status.waiting_for)
    return table


def _tokens(status: JobStatus) -> str:
    return f"{status.tokens.total:,} tokens" if status.has_usage else "unknown tokens"


def money(cost_usd: float | None) -> str:
    """Dollars with the digits that matter, or that nobody knows the price."""
    if cost_usd is None:
        return "cost unknown"
    if cost_usd >= 1:
        return f"${cost_usd:,.2f}"
    if cost_usd >= 0.0001:
        return f"${cost_usd:.4f}"
    if cost_usd <= 0:
        return "$0"
    return f"${cost_usd:.{1 - math.floor(math.log10(cost_usd))}f}"  # two digits that are not 0


def duration(seconds: float) -> str:
    """A time span in the two largest units that matter."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest_s} s"
