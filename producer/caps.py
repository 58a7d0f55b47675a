"""The caps that a user sets: whether they can hold, and what a resume may change."""

from __future__ import annotations

import dataclasses

from flavor.errors import InputError
from flavor.prices import Price
from flavor.types import Task
from worker.allowance import CAP_REACHED
from worker.jobs import Cap, JobSpec


def checked_cap(cap: Cap, *, price: Price | None, task: Task) -> Cap:
    """The cap itself.

    Raises:
        InputError: nobody would know what the requests cost, so it could not hold.
    """
    if cap and task is Task.PYFUNC:
        raise InputError("a cap needs the usage of each request, and this model tells none")
    if cap.cost_usd is not None and price is None:
        raise InputError("--max-cost needs a price, and none is known: submit with --price IN/OUT")
    return cap


def with_cap(
    spec: JobSpec, cap: Cap, *, spent_usd: float, tokens: int, reason: str | None = None
) -> JobSpec:
    """The job with what it may spend from now on, where a resume names ``cap``.

    ``reason`` is why it is paused.

    Raises:
        InputError: so the job would pause again at once, or the cap could not hold.
    """
    checked_cap(cap, price=spec.price, task=spec.task)
    if cap.cost_usd is not None and cap.cost_usd <= spent_usd:
        raise InputError(f"--max-cost {cap.cost_usd:g}: ${spent_usd:.4f} is spent already")
    if cap.total_tokens is not None and cap.total_tokens <= tokens:
        raise InputError(f"--max-total-tokens {cap.total_tokens}: {tokens:,} are used already")
    if not cap and (reason or "").startswith(CAP_REACHED):
        raise InputError(f"job {spec.job_id} would pause again: {reason}")
    total_tokens = cap.total_tokens or spec.cap.total_tokens
    cost_usd = cap.cost_usd or spec.cap.cost_usd
    return dataclasses.replace(spec, cap=Cap(total_tokens=total_tokens, cost_usd=cost_usd))
