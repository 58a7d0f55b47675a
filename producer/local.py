"""A job on this machine alone: Redis where none is named, workers, the job, and the end of all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click
from pydantic import SecretStr

from flavor.client import Client
from flavor.errors import InputError
from flavor.types import Task
from producer.embedded import EmbeddedRedis, Workers, embedded_redis
from producer.intake import SubmitOptions
from producer.preparing import Through, prepare
from producer.progress import watch
from producer.reading import note_pause, read_spec_of, read_status
from producer.services import Services, open_services
from producer.submission import enqueue
from worker.jobs import JobSpec, JobState
from worker.runs import prepare_tracking
from worker.settings import Settings
from worker.status import JobStatus

Start = Callable[[Services], Awaitable[JobSpec]]
"""Makes a job run, by services that are there."""

WORKER_LOG = Path("workers.log")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions:
    """How the machine is used. ``environment`` goes to the workers, beside this process's own."""

    workers: int = 1
    concurrency: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalResult:
    """How a job on this machine ended, and where to look at it."""

    status: JobStatus
    tracking_uri: str
    run_url: str | None
    experiment_id: str
    is_simulated: bool = False
    preview: list[dict[str, object]] = field(default_factory=list)


async def run_locally(
    settings: Settings,
    options: SubmitOptions,
    local: LocalOptions,
    *,
    through: Through | None = None,
) -> LocalResult:
    """Run one job to its end. Interrupted, it stops its workers in good order first.

    ``through`` is what its rows go through; see ``prepare``.

    Raises:
        BatchError: the input, the set-up or a service is at fault.
    """
    if not local.workers and not settings.has_redis:
        raise InputError(
            "--workers 0 needs REDIS_URL: nobody else's workers serve a Redis of our own"
        )
    async with (
        _local_services(settings) as here,
        prepare(here.services, options, through=through) as prepared,
    ):
        if prepared.asked.model.task is not Task.PYFUNC:
            await _check_key(local)
        return await _run_job(here, local, partial(enqueue, here.services, prepared))


async def resume_locally(
    settings: Settings, job_id: str, local: LocalOptions, *, start: Start
) -> LocalResult:
    """Run what is left of a job to its end on this machine, after ``start`` has resumed it."""
    async with _local_services(settings) as here:
        if (await read_spec_of(here.services, job_id)).task is not Task.PYFUNC:
            await _check_key(local)
        return await _run_job(here, local, partial(start, here.services))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Here:
    """What this machine has for a job; ``redis`` where it is our own."""

    services: Services
    redis: EmbeddedRedis | None


@asynccontextmanager
async def _local_services(settings: Settings) -> AsyncIterator[_Here]:
    """The services that the environment names, or our own for the length of the block."""
    changed: dict[str, object] = {"tracking_uri": prepare_tracking(settings.tracking_uri)}
    with nullcontext() if settings.has_redis else embedded_redis() as redis:
        if redis is not None:
            changed["redis_url"] = SecretStr(redis.url)
        async with open_services(settings.model_copy(update=changed)) as services:
            yield _Here(services=services, redis=redis)


async def _run_job(
    here: _Here, local: LocalOptions, start: Callable[[], Awaitable[JobSpec]]
) -> LocalResult:
    services = here.services
    async with _workers(services, local) as workers:

        def supervise() -> None:
            if here.redis is not None:
                here.redis.supervise()
            workers.supervise()

        spec = await start()
        click.echo(f"job {spec.job_id}: {spec.rows:,} rows in {spec.batches} batches", err=True)
        try:
            await watch(partial(read_status, services, spec.job_id), each=supervise)
        except BaseException:
            click.echo(f"interrupted; finish it with: producer resume {spec.job_id}", err=True)
            raise
    status = await read_status(services, spec.job_id)
    if status.state is JobState.PAUSED:
        await asyncio.to_thread(note_pause, services, status)
    run = services.runs.get(spec.job_id)
    return LocalResult(
        status=status,
        tracking_uri=services.runs.tracking_uri,
        run_url=services.runs.url(spec.job_id),
        experiment_id=run.info.experiment_id,
    )


@asynccontextmanager
async def _workers(services: Services, local: LocalOptions) -> AsyncIterator[Workers]:
    environment = {
        "REDIS_URL": services.redis_url,
        "MLFLOW_TRACKING_URI": services.runs.tracking_uri,
        **({"BATCH_CONCURRENCY": str(local.concurrency)} if local.concurrency else {}),
        **local.environment,
    }
    workers = Workers(
        local.workers,
        environment=environment,
        log_path=WORKER_LOG,
        most_restarts=local.workers * (services.settings.max_deliveries + 1),
    )
    try:
        yield workers
    finally:
        workers.close()


async def _check_key(local: LocalOptions) -> None:
    """These workers have our environment: without a key, say so before anything is sent."""
    if not local.workers or local.environment.get("OPENAI_API_KEY"):
        return
    client = Client.from_environment(concurrency=1)
    await client.close()
