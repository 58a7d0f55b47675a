"""What the user asked for, understood: the options, the model they name, and the input as a stream.

Nothing is sent or written here; ``preparing`` reads it for a job, ``estimate`` only counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Literal

from flavor.errors import InputError
from flavor.model import ModelSpec, check_params, check_pyfunc_params, read_spec
from flavor.prices import Price, find_price, parse_price
from flavor.types import Json, Task
from producer.caps import checked_cap
from producer.formats import Records, read_records
from producer.prompt import prompt_spec
from producer.source import SourceOptions, SourceRows, Wanted, read_rows
from worker.jobs import FIRST, LAST, NORMAL, Cap, Limits
from worker.settings import Settings

BATCH_SIZE = 200
_BATCH_SIZES = {Task.EMBEDDINGS: 2048}
"""Eight requests of embeddings, and with 1,536 dimensions a part of 12 MB."""

PARAMS_COLUMN = "params"

MOST_ROWS_PER_BATCH = 100_000
MOST_COST_USD = 9000
_MOST = 2**53
_WHOLE = {
    "limit": (1, _MOST),
    "batch_size": (1, MOST_ROWS_PER_BATCH),
    "rpm": (1, _MOST),
    "tpm": (1, _MOST),
    "max_total_tokens": (1, _MOST),
    "priority": (FIRST, LAST),
}


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
    pilot_of: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of its range, such as a limit of -1, which would be no limit.

        Raises:
            InputError: names the option.
        """
        for name, (least, most) in _WHOLE.items():
            value = getattr(self, name)
            if value is not None and not (_is_whole(value) and least <= value <= most):
                raise InputError(f"{name} must be a whole number {_range(least, most)}: {value!r}")
        if self.max_cost is not None and not 0 < self.max_cost <= MOST_COST_USD:
            raise InputError(f"max_cost must be above 0 and at most {MOST_COST_USD}")
        if not 0 <= self.trace <= 1:
            raise InputError(f"trace must be a share from 0 to 1: {self.trace!r}")
        if self.on_null not in ("error", "skip"):
            raise InputError(f"on_null must be 'error' or 'skip': {self.on_null!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options with what they name: all that is known of a job before its first row."""

    options: SubmitOptions
    model: ModelSpec
    batch_size: int
    price: Price | None
    limits: Limits
    cap: Cap

    @property
    def openai_model(self) -> str | None:
        """The OpenAI model that will be asked for; a job's own parameter wins."""
        return _openai_model(self.options, self.model)

    @property
    def input_name(self) -> str:
        """What the input is called where people see it."""
        path = self.options.input_path
        if self.options.input_name:
            return self.options.input_name
        return "stdin" if path == "-" else Path(path).name or path


def read_asked(settings: Settings, options: SubmitOptions) -> Asked:
    """Find the model, its price and the limits, and check the parameters. Blocks.

    Raises:
        InputError: the options do not go together, or there is no such model.
    """
    model = _read_model(options)
    check_params(model.task, options.params)
    if model.task is Task.PYFUNC:
        check_pyfunc_params(model, options.params)
    if options.trace and model.task is Task.PYFUNC:
        raise InputError("--trace shows requests, and this model sends none of ours")
    price = _price(options, model)
    cap = Cap(total_tokens=options.max_total_tokens, cost_usd=options.max_cost)
    return Asked(
        options=options,
        model=model,
        batch_size=options.batch_size or _BATCH_SIZES.get(model.task, BATCH_SIZE),
        price=price,
        limits=Limits(
            requests_per_min=options.rpm or settings.rpm,
            tokens_per_min=options.tpm or settings.tpm,
        ),
        cap=checked_cap(cap, price=price, task=model.task),
    )


def open_rows(asked: Asked) -> tuple[Records, SourceRows]:
    """The input as a stream of rows, and the records under it, which know its SHA-256 in the end.

    Raises:
        InputError: there is no such input; and while reading, whatever is wrong with it.
    """
    options, model = asked.options, asked.model
    records = read_records(options.input_path, input_format=options.input_format)
    rows = read_rows(
        records,
        Wanted.by(model),
        options=SourceOptions(
            columns=options.columns,
            id_column=options.id_column,
            params_column=params_column(model.task),
            limit=options.limit,
            on_null=options.on_null,
        ),
        check_params=lambda params: check_params(model.task, params),
    )
    return records, rows


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)  # numpy's, too


def _range(least: int, most: int) -> str:
    return f"of {least} or more" if most == _MOST else f"from {least} to {most}"


def params_column(task: Task) -> str | None:
    """Where a row may carry request parameters of its own; to a pyfunc such a column is data."""
    return None if task is Task.PYFUNC else PARAMS_COLUMN


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
    name = _openai_model(options, model)
    return find_price(name) if name is not None else None


def _openai_model(options: SubmitOptions, model: ModelSpec) -> str | None:
    named = options.params.get("model", model.openai_model)
    return None if named is None else str(named)
