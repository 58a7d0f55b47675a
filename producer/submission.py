"""A file of texts becomes a job: read and checked as a whole, then written, then published.

``prepare`` sends nothing: whatever is wrong with the input, the model or the options shows there.
``enqueue`` writes the run, then the batches, then the job, then the messages; a producer that dies
in between leaves a draft, which no worker sees.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Literal

from flavor.errors import BatchError, InputError
from flavor.model import ModelSpec, check_params, read_spec
from flavor.prices import Price, find_price, parse_price
from flavor.types import Json, Task
from producer.formats import read_records
from producer.prompt import log_prompt_model, prompt_spec
from producer.services import Services
from producer.source import SourceOptions, Wanted, read_rows
from producer.spool import BatchOptions, Spool, Spooled
from worker.broker import publish
from worker.codec import encode_rows
from worker.jobs import JobSpec, Limits
from worker.runs import INPUTS, SPEC_FILE, TAG_STATE, input_dataset, prepare_tracking

log = logging.getLogger(__name__)

BATCH_SIZE = 200
_BATCH_SIZES = {Task.EMBEDDINGS: 2048}
"""An embeddings batch fills one request. Source: openai 3.54.0, resources/embeddings.py."""

PARAMS_COLUMN = "params"
"""Where a row may carry request parameters of its own."""

_STORED_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """What the user asked for; the command line's options under the same names."""

    input_path: str
    model: str | None = None
    prompt: str | None = None
    openai_model: str | None = None
    task: Task | None = None
    params: Mapping[str, Json] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    id_column: str | None = None
    input_name: str | None = None
    input_format: str | None = None
    limit: int | None = None
    on_null: Literal["error", "skip"] = "error"
    batch_size: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    price: str | None = None
    experiment: str = "batch-inference"
    run_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    log_input: bool = True
    trace: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An input that was found good, on disk, with all that the job needs beside it."""

    options: SubmitOptions
    model: ModelSpec
    spooled: Spooled
    input_name: str
    input_sha256: str
    batch_size: int
    price: Price | None
    limits: Limits

    @property
    def openai_model(self) -> str | None:
        """The OpenAI model that will be asked for; a job's own parameter wins."""
        named = self.options.params.get("model", self.model.openai_model)
        return None if named is None else str(named)


@asynccontextmanager
async def prepare(services: Services, options: SubmitOptions) -> AsyncIterator[Prepared]:
    """Read and check everything, and keep the rows on disk for the length of the block.

    Raises:
        InputError: something is wrong; nothing was sent or written anywhere.
    """
    await services.check_redis()
    await asyncio.to_thread(prepare_tracking, services.settings.tracking_uri)
    model = await asyncio.to_thread(_read_model, options)
    check_params(model.task, options.params)
    if options.trace and model.task is Task.PYFUNC:
        raise InputError("--trace shows requests, and this model sends none of ours")
    batch_size = options.batch_size or _BATCH_SIZES.get(model.task, BATCH_SIZE)
    price = _price(options, model)
    with Spool(
        encode_rows, options=BatchOptions(batch_size=batch_size), has_ids=bool(options.id_column)
    ) as spool:
        records = read_records(options.input_path, input_format=options.input_format)
        rows = read_rows(
            records,
            Wanted(
                variables=model.variables,
                aliases=model.aliases,
                accepts_messages=model.accepts_messages,
            ),
            options=SourceOptions(
                columns=options.columns,
                id_column=options.id_column,
                params_column=PARAMS_COLUMN,
                limit=options.limit,
                on_null=options.on_null,
            ),
            check_params=lambda params: check_params(model.task, params),
        )
        spooled = await asyncio.to_thread(spool.write, rows)
        await asyncio.to_thread(records.finish)
        yield Prepared(
            options=options,
            model=model,
            spooled=spooled,
            input_name=options.input_name or _input_name(options.input_path),
            input_sha256=records.input_sha256 or "",
            batch_size=batch_size,
            price=price,
            limits=Limits(
                requests_per_min=options.rpm or services.settings.rpm,
                tokens_per_min=options.tpm or services.settings.tpm,
            ),
        )


async def enqueue(services: Services, prepared: Prepared) -> JobSpec:
    """Write the run and the job, and publish its batches. From then on it will be done.

    Raises:
        BatchError: Redis or MLflow failed; no half job is left behind, and the run says FAILED.
    """
    runs, options = services.runs, prepared.options
    model = await asyncio.to_thread(_logged_model, services, prepared)
    name = options.run_name or _job_name(prepared)
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
        await services.store.commit(job_id)
    except BaseException:
        await _undo(services, spec)
        raise
    # Committed: a message lost from here on is published again by a worker's reaper.
    await asyncio.to_thread(publish, services.app, job_id, name=name, batches=batches)
    return spec


def _read_model(options: SubmitOptions) -> ModelSpec:
    if options.model is not None:
        if options.prompt is not None:
            raise InputError("--model and --prompt exclude each other: a model has its own prompt")
        return read_spec(options.model, openai_model=options.openai_model)
    if options.openai_model is None:
        raise InputError("name a model: --model URI, or --prompt TEXT --openai-model NAME")
    return prompt_spec(options.prompt, openai_model=options.openai_model, task=options.task)


def _logged_model(services: Services, prepared: Prepared) -> ModelSpec:
    """The model as workers will load it: a ``--prompt`` is logged first."""
    if prepared.options.model is not None:
        return prepared.model
    return log_prompt_model(services.runs, prepared.model, experiment=prepared.options.experiment)


def _price(options: SubmitOptions, model: ModelSpec) -> Price | None:
    if options.price is not None:
        return parse_price(options.price)
    name = options.params.get("model", model.openai_model)
    return find_price(str(name)) if name is not None else None


def _input_name(path: str) -> str:
    return "stdin" if path == "-" else Path(path).name or path


def _job_name(prepared: Prepared) -> str:
    model = prepared.model
    name = model.registered_name or prepared.openai_model or model.uri
    version = f" v{model.registered_version}" if model.registered_version else ""
    return f"{prepared.input_name} · {name}{version}"


def _tags(prepared: Prepared) -> dict[str, str]:
    return {
        TAG_STATE: "queued",
        "batch.input_sha256": prepared.input_sha256,
        "batch.version": version("batch-inference-worker"),
        "batch.task": prepared.model.task.value,
        "batch.openai_model": prepared.openai_model or "",
    }


def _job_spec(prepared: Prepared, model: ModelSpec, *, job_id: str, name: str) -> JobSpec:
    spooled, options = prepared.spooled, prepared.options
    return JobSpec(
        job_id=job_id,
        name=name,
        model_uri=model.resolved_uri,
        model_uri_given=options.model or model.resolved_uri,
        model_id=model.model_id,
        task=model.task,
        openai_model=prepared.openai_model,
        rows=spooled.rows,
        batches=spooled.batches,
        batch_size=prepared.batch_size,
        input_name=prepared.input_name,
        input_sha256=prepared.input_sha256,
        created_at=datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
        params=options.params,
        columns=options.columns,
        id_column=options.id_column,
        params_column=PARAMS_COLUMN,
        price=prepared.price,
        limits=prepared.limits,
        is_input_logged=options.log_input,
        trace=options.trace,
        input_columns=spooled.columns.kinds,
    )


def _describe(services: Services, prepared: Prepared, spec: JobSpec) -> None:
    """Log what the job is. Blocks."""
    runs = services.runs
    effective = {**prepared.model.params, **spec.params}
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
