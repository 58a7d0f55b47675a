"""An input is read and checked as a whole before anything is written: nothing is sent here.

Whatever is wrong with the input, the model or the options shows in ``prepare``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flavor.errors import InputError
from flavor.model import ModelSpec, check_params, read_spec
from flavor.prices import Price, find_price, parse_price
from flavor.types import Json, Task
from producer.caps import checked_cap
from producer.formats import read_records
from producer.prompt import prompt_spec
from producer.services import Services
from producer.source import SourceOptions, Wanted, read_rows
from producer.spool import BatchOptions, Spool, Spooled
from worker.codec import encode_rows
from worker.jobs import NORMAL, Cap, Limits
from worker.runs import prepare_tracking
from worker.settings import Settings

BATCH_SIZE = 200
_BATCH_SIZES = {Task.EMBEDDINGS: 2048}
"""An embeddings batch fills one request. Source: openai 3.54.0, resources/embeddings.py."""

PARAMS_COLUMN = "params"
"""Where a row may carry request parameters of its own."""


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
    priority: int = NORMAL
    max_cost: float | None = None
    max_total_tokens: int | None = None
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
    cap: Cap

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
    cap = Cap(total_tokens=options.max_total_tokens, cost_usd=options.max_cost)
    cap = checked_cap(cap, price=price, task=model.task)
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
            limits=_limits(options, services.settings),
            cap=cap,
        )


def _limits(options: SubmitOptions, settings: Settings) -> Limits:
    return Limits(
        requests_per_min=options.rpm or settings.rpm, tokens_per_min=options.tpm or settings.tpm
    )


def _read_model(options: SubmitOptions) -> ModelSpec:
    if options.model is not None:
        if options.prompt is not None:
            raise InputError("--model and --prompt exclude each other: a model has its own prompt")
        return read_spec(options.model, openai_model=options.openai_model)
    if options.openai_model is None:
        raise InputError("name a model: --model URI, or --prompt TEXT --openai-model NAME")
    return prompt_spec(options.prompt, openai_model=options.openai_model, task=options.task)


def _price(options: SubmitOptions, model: ModelSpec) -> Price | None:
    if options.price is not None:
        return parse_price(options.price)
    name = options.params.get("model", model.openai_model)
    return find_price(str(name)) if name is not None else None


def _input_name(path: str) -> str:
    return "stdin" if path == "-" else Path(path).name or path
