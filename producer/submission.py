"""A prepared input becomes a job: the run, then the batches, then the job, then the messages.

A producer that dies in between leaves a draft, which no worker sees.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import islice

from flavor.errors import BatchError
from flavor.model import ModelSpec
from producer.intake import Asked, params_column
from producer.pilot import keep
from producer.preparing import Prepared
from producer.prompt import log_prompt_model
from producer.services import Services
from worker.broker import publish
from worker.datasets import input_dataset
from worker.jobs import JobSpec
from worker.runs import INPUTS, SPEC_FILE, TAG_STATE

log = logging.getLogger(__name__)

_STORED_AT_ONCE = 32


async def enqueue(services: Services, prepared: Prepared) -> JobSpec:
    """Write the run and the job, and publish its batches. From then on it will be done.

    Raises:
        BatchError: Redis or MLflow failed; no half job is left behind, and the run says FAILED.
    """
    runs, options = services.runs, prepared.asked.options
    model = await asyncio.to_thread(_logged_model, services, prepared)
    name = options.run_name or _job_name(prepared.asked)
    job_id = await asyncio.to_thread(
        runs.create,
        experiment=options.experiment,
        run_name=name,
        tags={**options.tags, **_tags(prepared)},
    )
    spec = _job_spec(prepared, model, job_id=job_id, name=name)
    try:
        await asyncio.to_thread(_describe, services, prepared, spec)
        await services.store.begin(spec)
        batches = await _store_batches(services, prepared, job_id)
        carried = prepared.carried
        if carried is not None:
            await keep(services, spec, carried)
        await services.store.commit(job_id, counts=carried.totals.counts() if carried else None)
    except BaseException:
        await _undo(services, spec)
        raise
    # Committed: a message lost from here on is published again by a worker's reaper.
    await asyncio.to_thread(
        publish, services.app, job_id, name=name, batches=batches, priority=spec.priority
    )
    return spec


def _logged_model(services: Services, prepared: Prepared) -> ModelSpec:
    """The model as workers will load it: a ``--prompt`` is logged first."""
    asked = prepared.asked
    if asked.model.resolved_uri:
        return asked.model
    return log_prompt_model(services.runs, asked.model, experiment=asked.options.experiment)


def _job_name(asked: Asked) -> str:
    model = asked.model
    name = model.registered_name or asked.openai_model or model.uri
    version = f" v{model.registered_version}" if model.registered_version else ""
    return f"{asked.input_name} · {name}{version}"


def _tags(prepared: Prepared) -> dict[str, str]:
    return {
        TAG_STATE: "queued",
        "batch.input_sha256": prepared.input_sha256,
        "batch.version": version("batch-inference-worker"),
        "batch.task": prepared.asked.model.task.value,
        "batch.openai_model": prepared.asked.openai_model or "",
        **(prepared.carried.tags if prepared.carried else {}),
    }


def _job_spec(prepared: Prepared, model: ModelSpec, *, job_id: str, name: str) -> JobSpec:
    spooled, asked, options = prepared.spooled, prepared.asked, prepared.asked.options
    return JobSpec(
        job_id=job_id,
        name=name,
        model_uri=model.resolved_uri,
        model_uri_given=options.model or model.resolved_uri,
        model_id=model.model_id,
        task=model.task,
        openai_model=asked.openai_model,
        rows=spooled.rows,
        batches=spooled.batches,
        batch_size=asked.batch_size,
        input_name=asked.input_name,
        input_sha256=prepared.input_sha256,
        created_at=datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
        params=options.params,
        columns=options.columns,
        id_column=options.id_column,
        params_column=params_column(model.task),
        price=asked.price,
        limits=asked.limits,
        cap=asked.cap,
        priority=options.priority,
        is_input_logged=options.log_input,
        trace=options.trace,
        input_columns=spooled.columns.kinds,
    )


def _describe(services: Services, prepared: Prepared, spec: JobSpec) -> None:
    """Log what the job is. Blocks."""
    runs = services.runs
    effective = {**prepared.asked.model.params, **spec.params}
    runs.describe(
        spec.job_id,
        params={
            "model_uri": spec.model_uri,
            "model_id": spec.model_id or "",
            "openai_model": spec.openai_model or "",
            "task": spec.task.value,
            "input": spec.input_name,
            "rows": spec.rows,
            "rows_skipped": prepared.spooled.skipped,
            **{f"request.{key}": value for key, value in effective.items()},
        },
        dataset=input_dataset(
            name=spec.input_name,
            sha256=spec.input_sha256,
            rows=spec.rows,
            columns=prepared.spooled.columns,
        ),
        model_id=spec.model_id,
        prompt_uri=spec.model_uri if spec.model_uri.startswith("prompts:/") else None,
    )
    runs.log_text(spec.job_id, SPEC_FILE, spec.to_json())
    if spec.is_input_logged:
        for path in prepared.spooled.input_files:
            runs.log_file(spec.job_id, path, INPUTS)


async def _store_batches(
    services: Services, prepared: Prepared, job_id: str
) -> dict[str, int | None]:
    """Write the batches; returns how many rows each has."""
    rows: dict[str, int | None] = {}
    payloads = prepared.spooled.payloads()
    while group := list(islice(payloads, _STORED_AT_ONCE)):
        await services.store.add_batches(job_id, [(p.batch, p.payload) for p in group])
        rows |= {str(p.batch): p.rows for p in group}
    return rows


async def _undo(services: Services, spec: JobSpec) -> None:
    """Leave no half job behind. Best effort: the error that brought us here is the one to show."""
    try:
        await services.store.discard(spec.job_id, spec.batches)
    except BatchError as error:
        log.warning("draft left behind", extra={"job_id": spec.job_id, "reason": str(error)})
    try:
        await asyncio.to_thread(services.runs.set_tags, spec.job_id, {TAG_STATE: "failed"})
        await asyncio.to_thread(services.runs.end, spec.job_id, "FAILED")
    except BatchError as error:
        log.warning("run left open", extra={"job_id": spec.job_id, "reason": str(error)})
