"""The options that ``run``, ``submit`` and ``estimate`` share, and what they mean in Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import click

from flavor.errors import InputError
from flavor.types import Json, Task
from producer.intake import MOST_COST_USD, MOST_ROWS_PER_BATCH
from worker.jobs import FIRST, LAST, NORMAL

_Command = Callable[..., Any]


def job_options(command: _Command) -> _Command:
    """Add INPUT and all options that describe a job."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def pilot_option(command: _Command) -> _Command:
    """Add ``--pilot-of`` to a command that starts a job."""
    return click.option(
        "--pilot-of",
        metavar="JOB",
        help="Take over the outcomes of a pilot (or of any job over this input): its rows are "
        "not sent, and not paid, again.",
    )(command)


def parse_pairs(pairs: Iterable[str], *, option: str) -> dict[str, str]:
    """``NAME=VALUE`` pairs.

    Raises:
        InputError: one has no ``=``, or a name comes twice.
    """
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"{option} {pair!r}: expected NAME=VALUE")
        if name in values:
            raise InputError(f"{option} {name}: given twice")
        values[name] = value
    return values


def parse_params(pairs: Iterable[str]) -> dict[str, Json]:
    """``--param`` pairs: a value that is JSON is that JSON, anything else is its text.

    NaN and the infinities are no JSON.
    """
    return {name: _json(value) for name, value in parse_pairs(pairs, option="--param").items()}


def submit_values(values: dict[str, Any]) -> dict[str, Any]:
    """The options of ``job_options`` as ``SubmitOptions`` takes them."""
    task = values.pop("task")
    return {
        **values,
        "params": parse_params(values.pop("params")),
        "columns": parse_pairs(values.pop("columns"), option="--column"),
        "tags": parse_pairs(values.pop("tags"), option="--tag"),
        "task": Task(task) if task else None,
    }


def _json(text: str) -> Json:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is no JSON")


cap_options = [
    click.option(
        "--max-cost",
        type=click.FloatRange(min=0, min_open=True, max=MOST_COST_USD),
        metavar="USD",
        help="Pause the job before it costs more than this.",
    ),
    click.option(
        "--max-total-tokens",
        type=click.IntRange(min=1),
        metavar="N",
        help="Pause the job before it uses more tokens than this.",
    ),
]
"""Of the commands that start a job or let it go on."""

_TASKS = click.Choice([task.value for task in Task if task is not Task.PYFUNC])
_FORMATS = click.Choice(["jsonl", "csv", "tsv", "parquet", "text"])

_OPTIONS = [
    click.argument("input_path", metavar="INPUT"),
    click.option(
        "--model",
        metavar="URI",
        help="models:/name@alias, models:/name/3, models:/m-…, "
        "runs:/…/model, prompts:/name@alias or a folder.",
    ),
    click.option(
        "--prompt", metavar="TEXT", help="A prompt with {variables}, logged as a model first."
    ),
    click.option(
        "--openai-model",
        metavar="NAME",
        help="With --prompt, or for a prompt that names none; alone, it gets each text as it is.",
    ),
    click.option(
        "--task", type=_TASKS, help="With --openai-model: what it does. [default: by its name]"
    ),
    click.option(
        "--param",
        "params",
        multiple=True,
        metavar="NAME=VALUE",
        help="A request parameter, such as temperature=0. Repeatable.",
    ),
    click.option(
        "--column",
        "columns",
        multiple=True,
        metavar="VARIABLE=COLUMN",
        help="Fill a variable from a column of another name. Repeatable.",
    ),
    click.option(
        "--id-column", metavar="COLUMN", help="The column of the rows' ids. [default: count]"
    ),
    click.option("--input-format", type=_FORMATS, help="Where the file's suffix does not say it."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N rows."),
    click.option(
        "--on-null",
        type=click.Choice(["error", "skip"]),
        default="error",
        show_default=True,
        help="What to do with a row whose variable is null.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(1, MOST_ROWS_PER_BATCH),
        metavar="N",
        help="Rows per batch. [default: 200; embeddings 2048]",
    ),
    click.option(
        "--rpm", type=click.IntRange(min=1), metavar="N", help="Requests per minute, all workers."
    ),
    click.option(
        "--tpm", type=click.IntRange(min=1), metavar="N", help="Tokens per minute, all workers."
    ),
    *cap_options,
    click.option(
        "--priority",
        type=click.IntRange(FIRST, LAST),
        default=NORMAL,
        show_default=True,
        metavar="N",
        help="From 0 to 9; batches of a job with a lower number are taken first.",
    ),
    click.option(
        "--price",
        metavar="IN/OUT[/CACHED]",
        help="USD per million tokens. [default: MLflow's catalogue]",
    ),
    click.option(
        "--experiment",
        default="batch-inference",
        show_default=True,
        metavar="NAME",
        help="MLflow experiment of the job's run.",
    ),
    click.option("--run-name", metavar="NAME", help="Name of the job. [default: input and model]"),
    click.option(
        "--tag", "tags", multiple=True, metavar="NAME=VALUE", help="A tag of the run. Repeatable."
    ),
    click.option(
        "--trace",
        type=click.FloatRange(0, 1),
        default=0.0,
        metavar="SHARE",
        help="Log this share of the requests as MLflow traces, such as 0.01. [default: none]",
    ),
    click.option(
        "--log-input/--no-log-input",
        default=True,
        show_default=True,
        help="Keep the input in the run; without it the job cannot be rebuilt.",
    ),
]
