"""Request parameters: which exist, which layer wins, and which part of a request each belongs to.

What OpenAI accepts is asked of the installed SDK, so that a new parameter needs no release of ours.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

from flavor.errors import InputError
from flavor.tokens import answer_bound, answer_per_row, reserve_per_row
from flavor.types import Json, Task

# Ours to fill, row by row.
_FILLED = {"self", "messages", "prompt", "input"}
# How MLflow's pyfunc sends, not what it sends (source: mlflow 3.17.2, openai/model.py, _predict_*).
_PACKED = {"batch_size", "max_retries"}
_UNPACKED = {"max_retries"}
# A row has one answer, and it is stored when it is whole.
_STREAMING = {"stream", "stream_options"}
_MERGED = {"extra_body", "extra_headers", "extra_query"}
# Parameters are stored in Redis and MLflow, where a key has no place.
_CREDENTIALS = {"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # source: RFC 9110, 5.6.2, token


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestParams:
    """Effective parameters, sorted by where they go.

    ``batch_size`` is how many rows share a request, ``reserved_tokens`` what to reserve for each
    besides its own text. ``answer_tokens`` is the answer's part of that.
    """

    body: Mapping[str, Json]
    reserved_tokens: int
    answer_tokens: int = 0
    is_answer_bounded: bool = False
    headers: Mapping[str, str] | None = None
    query: Mapping[str, str] | None = None
    timeout_s: float | None = None
    batch_size: int | None = None


def check_params(task: Task, params: Mapping[str, Json]) -> None:
    """Refuse parameters that the task does not have or that cannot work in a batch.

    A pyfunc's parameters are in its own signature: see ``pyfunc.check_pyfunc_params``.

    Raises:
        InputError: names the first offender and, where there is one, what was probably meant.
    """
    if task is Task.PYFUNC:
        return
    known = known_params(task)
    for name, value in params.items():
        if name not in known:
            raise InputError(unknown_param(name, known, of=task))
        _check_value(name, value)


def overlay(*layers: Mapping[str, Json]) -> dict[str, Json]:
    """Later layers win. A null takes a parameter away, which to the API is its default."""
    merged = {name: value for layer in layers for name, value in layer.items()}
    return {name: value for name, value in merged.items() if value is not None}


def sort_params(task: Task, params: Mapping[str, Json]) -> RequestParams:
    """Put each parameter where the SDK would put it; ``extra_body`` wins over named ones, as there.

    ``max_retries`` goes nowhere: the worker's own layer is the only one that retries.
    """
    elsewhere = _MERGED | _PACKED | _STREAMING | {"timeout"}
    named = {name: value for name, value in params.items() if name not in elsewhere}
    body = named | dict(params.get("extra_body") or {})
    return RequestParams(
        body=body,
        reserved_tokens=reserve_per_row(task, body),
        answer_tokens=answer_per_row(task, body),
        is_answer_bounded=answer_bound(body) is not None,
        headers=_texts(params.get("extra_headers")),
        query=_texts(params.get("extra_query")),
        timeout_s=params.get("timeout"),
        batch_size=params.get("batch_size"),
    )


@lru_cache
def known_params(task: Task) -> frozenset[str]:
    """The parameters of the SDK's verb for ``task``, and those of MLflow's pyfunc."""
    names = set(inspect.signature(_verb(task)).parameters) - _FILLED
    return frozenset(names | (_UNPACKED if task is Task.CHAT else _PACKED))


def unknown_param(name: str, known: frozenset[str], *, of: str) -> str:
    """The text of an error: what is unknown, and what it is close to."""
    close = get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown parameter {name!r} for {of}{hint}"


def _verb(task: Task) -> Callable[..., Json]:
    from openai import resources  # costs a second, which a command without a model need not pay

    if task is Task.CHAT:
        return resources.chat.AsyncCompletions.create
    if task is Task.COMPLETIONS:
        return resources.AsyncCompletions.create
    return resources.AsyncEmbeddings.create


def _check_value(name: str, value: Json) -> None:
    if value is None:
        return
    if name in _STREAMING and value:
        raise InputError(
            f"parameter {name!r}: answers are stored whole, streaming is not supported"
        )
    if name in _MERGED:
        _check_merged(name, value)
    if name == "timeout" and not _is_positive(value):
        raise InputError("parameter 'timeout' must be a number of seconds above 0")
    if name == "batch_size" and not (_is_positive(value) and isinstance(value, int)):
        raise InputError("parameter 'batch_size' must be a whole number above 0")
    if name == "encoding_format" and value not in {"float", "base64"}:
        raise InputError("parameter 'encoding_format' must be 'float' or 'base64'")


def _check_merged(name: str, value: Json) -> None:
    if not isinstance(value, Mapping):
        raise InputError(f"parameter {name!r} must be an object")
    if name == "extra_headers":
        _check_headers(value)
    if name != "extra_body":
        return
    for inner in ("messages", "prompt", "input"):
        if inner in value:
            raise InputError(f"parameter 'extra_body': {inner!r} comes from the rows")
    for inner in _STREAMING & value.keys():
        _check_value(inner, value[inner])


def _check_headers(headers: Mapping[str, Json]) -> None:
    for header, value in headers.items():
        if header.lower() in _CREDENTIALS:
            raise InputError(
                f"parameter 'extra_headers': {header!r} is a credential; "
                "keys are read from the workers' environment"
            )
        if not _HEADER_NAME.fullmatch(header):
            raise InputError(f"parameter 'extra_headers': {header!r} is no name of a header")
        text = str(value)
        if not (text.isascii() and text.isprintable()):
            raise InputError(f"parameter 'extra_headers': {header!r} must be printable ASCII")


def _is_positive(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _texts(mapping: Mapping[str, Json] | None) -> dict[str, str] | None:
    return {key: str(value) for key, value in mapping.items()} if mapping else None
