"""What is known of jobs: from Redis while they run, from their MLflow runs for ever after."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from flavor.errors import InputError, StoreError
from flavor.types import Task
from worker.jobs import JobSpec, JobState, Verdict
from worker.runs import ROWS_IN_DOUBT, TAG_REASON, TAG_STATE
from worker.status import JobStatus, Requests, Tokens

if TYPE_CHECKING:
    from mlflow.entities import Run

    from producer.services import Services

_REQUESTS = ("sent", "answered", "retried", "throttled")
_RUN_STATES = {
    "FINISHED": JobState.COMPLETED,
    "FAILED": JobState.FAILED,
    "KILLED": JobState.CANCELLED,
}


async def read_status(services: Services, job_id: str) -> JobStatus:
    """How a job stands.

    Raises:
        InputError: neither Redis nor MLflow knows it.
        StoreError: Redis is away, and the job has not ended: only Redis knows how it stands.
    """
    outage: StoreError | None = None
    try:
        status = await services.store.status(job_id)
    except StoreError as error:  # an embedded Redis is gone with its job; the run is not
        status, outage = None, error
    if status is not None:
        return status
    run = await asyncio.to_thread(_job_run, services, job_id)
    recorded = _to_status(run)
    if _is_ended(run):
        return recorded
    if outage is not None and services.settings.has_redis:
        raise outage
    reason = pause_reason(run) or f"interrupted: producer resume {job_id} continues it"
    return replace(recorded, state=JobState.PAUSED, reason=reason)


def note_pause(services: Services, status: JobStatus) -> None:
    """Write into the run how a paused job stands, before the Redis that knows it ends. Blocks."""
    figures: dict[str, float] = {
        **{f"rows.{verdict.value}": count for verdict, count in status.rows.items()},
        **{f"requests.{name}": getattr(status.requests, name) for name in _REQUESTS},
        ROWS_IN_DOUBT: status.rows_in_doubt,
    }
    if status.has_usage:
        figures |= {f"tokens.{name}": count for name, count in asdict(status.tokens).items()}
    if status.cost_usd is not None:
        figures["cost.usd"] = status.cost_usd
    age_s = time.time() - (status.created_ms or 0) / 1000
    services.runs.log_metrics(status.job_id, figures, step=max(0, int(age_s)))
    tags = {TAG_STATE: JobState.PAUSED.value, TAG_REASON: status.reason or ""}
    services.runs.set_tags(status.job_id, tags)


def pause_reason(run: Run) -> str | None:
    """Why the job of this run was paused, if it was."""
    tags = run.data.tags
    return tags.get(TAG_REASON) if tags.get(TAG_STATE) == JobState.PAUSED else None


async def read_jobs(services: Services) -> list[JobStatus]:
    """All jobs that MLflow or Redis know, newest first."""
    try:
        live = {status.job_id: status for status in await services.store.statuses()}
    except StoreError:
        live = {}
    runs = await asyncio.to_thread(services.runs.jobs)
    recorded = {run.info.run_id: _to_status(run) for run in runs}
    return sorted((recorded | live).values(), key=lambda s: s.created_ms or 0, reverse=True)


async def read_spec_of(services: Services, job_id: str) -> JobSpec:
    """A job's spec. Raises ``InputError`` where nobody knows the job."""
    try:
        spec = await services.store.spec(job_id)
    except StoreError:
        spec = None
    if spec is None:
        await asyncio.to_thread(_job_run, services, job_id)
        spec = await asyncio.to_thread(services.runs.spec, job_id)
    return spec


def _job_run(services: Services, job_id: str) -> Run:
    try:
        run = services.runs.get(job_id)
    except InputError as error:
        raise InputError(f"no job {job_id}: see producer jobs") from error
    if not _is_job(run):
        raise InputError(f"run {job_id} is no job of ours: see producer jobs")
    return run


def _is_job(run: Run) -> bool:
    return run.data.tags.get("batch.job") == "true"


def _is_ended(run: Run) -> bool:
    return run.info.status in _RUN_STATES


def _to_status(run: Run) -> JobStatus:
    metrics, tags, params = run.data.metrics, run.data.tags, run.data.params

    def whole(name: str) -> int:
        return int(metrics.get(name, 0))

    state = _RUN_STATES.get(run.info.status) or JobState(tags.get("batch.state", "queued"))
    return JobStatus(
        job_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        state=state,
        rows_total=int(params.get("rows", 0)),
        rows={verdict: whole(f"rows.{verdict.value}") for verdict in Verdict},
        tokens=Tokens(
            prompt=whole("tokens.prompt"),
            completion=whole("tokens.completion"),
            total=whole("tokens.total"),
            cached=whole("tokens.cached"),
            reasoning=whole("tokens.reasoning"),
        ),
        requests=Requests(**{name: whole(f"requests.{name}") for name in _REQUESTS}),
        rows_in_doubt=whole(ROWS_IN_DOUBT),
        cost_usd=metrics.get("cost.usd"),
        has_usage=params.get("task") != Task.PYFUNC,
        created_ms=run.info.start_time,
        started_ms=run.info.start_time,
        finished_ms=run.info.end_time,
    )
