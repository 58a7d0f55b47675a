"""The time series of running jobs: one metric point of each figure a second, whoever writes it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from worker.jobs import JobState, Limits
from worker.process import Process
from worker.publish import metric_step, progress_metrics
from worker.reports import Wait
from worker.status import JobStatus
from worker.upkeep import tolerant

PERIOD_MS = 1000
"""At most one point of each metric per job in this time, whatever the number of workers."""

DENSE_S = 600
"""For so long a job has a point a second; then they grow rarer with its age: 3,000 in 10 hours."""


async def sample_regularly(process: Process) -> None:
    """Write the metric points of running jobs; MLflow may take its time."""
    sampler = Sampler(process)
    await asyncio.sleep(0.1)  # after the beats, whose reports it sums
    while True:
        await asyncio.sleep(PERIOD_MS / 1000)
        if process.open:
            await tolerant(Sampler.turn, sampler)


@dataclass(slots=True)
class _Known:
    """What is remembered of a job between its samples."""

    started_ms: int | None = None
    waits: set[Wait] = field(default_factory=set)  # all that it has waited for


class Sampler:
    """Writes points for the jobs that the process works on, unless another process just did."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._known: dict[str, _Known] = {}

    async def turn(self) -> None:
        """Look once after every job."""
        job_ids = {job_id for job_id, _ in self._process.open}
        self._known = {job_id: self._known.get(job_id, _Known()) for job_id in job_ids}
        for job_id, known in self._known.items():
            if await self._process.store.may_sample(job_id, period_ms(known.started_ms)):
                await self._sample(job_id, known)

    async def _sample(self, job_id: str, known: _Known) -> None:
        at_ms = time.time_ns() // 1_000_000
        status = await self._process.store.status(job_id)
        spec = await self._process.spec(job_id)
        # Not while it is finalized: the last word is the finalizer's.
        if status is None or spec is None or status.state is not JobState.IN_PROGRESS:
            return
        known.started_ms = status.started_ms
        values = progress_metrics(status) | self._limits(job_id) | _waits(status, known)
        await self._process.in_mlflow_thread(
            self._process.runs.log_metrics,
            job_id,
            values,
            step=metric_step(spec),  # not linked to the model: its page would list every point
            at_ms=at_ms,
        )

    def _limits(self, job_id: str) -> dict[str, float]:
        """The account's limits as this process knows them: set, or learned from answers."""
        lanes = [b.lane for b in self._process.open.values() if b.lease.job_id == job_id]
        limits = next((lane.limits for lane in lanes if lane), Limits())
        values = {
            "limit.requests_per_min": limits.requests_per_min,
            "limit.tokens_per_min": limits.tokens_per_min,
        }
        return {name: value for name, value in values.items() if value}


def period_ms(started_ms: int | None) -> int:
    """How long no other point of a job is written, from when it was started."""
    if started_ms is None:
        return PERIOD_MS
    age_ms = time.time_ns() // 1_000_000 - started_ms
    return max(PERIOD_MS, age_ms // DENSE_S)


def _waits(status: JobStatus, known: _Known) -> dict[str, float]:
    """The share of processes that wait, for everything that the job has ever waited for."""
    waits = status.pace.waits
    known.waits.update(waits)
    return {f"waiting.{wait}": round(waits.get(wait, 0.0), 3) for wait in sorted(known.waits)}
