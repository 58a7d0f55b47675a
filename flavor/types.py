"""What is asked of a model and what comes back: plain values, no I/O.

These cross every floor, so they stay small, and nobody changes one that he was given. To say so
with ``frozen`` would double the time that it takes to make one, and every row makes five. What
happens to a row on the way (leases, verdicts) is the worker's business and lives in
``worker.jobs``.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING or sys.version_info >= (3, 11):
    StrEnum = enum.StrEnum
else:  # Python 3.10 has no StrEnum

    class StrEnum(str, enum.Enum):
        """A member is its text, also when printed."""

        __str__ = str.__str__


Json: TypeAlias = Any
"""Anything that JSON can say. Narrowed where it is read: it comes from users and servers."""


class Task(StrEnum):
    """What a model does with a row. The first three are the tasks of MLflow's OpenAI flavor."""

    CHAT = "chat.completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    PYFUNC = "pyfunc"  # any other MLflow model, run through its own ``predict``


@dataclass(slots=True, kw_only=True)
class Row:
    """One input text with its variables, as the template wants them.

    ``values`` holds the template's variables by name; ``params`` are request parameters of this row
    alone and win over everything else. ``index`` is the row's place in the job, from 0.
    """

    row_id: str
    index: int
    values: Mapping[str, Json]
    params: Mapping[str, Json] | None = None


@dataclass(slots=True, kw_only=True)
class Usage:
    """Tokens the API says it billed. ``cached`` is part of prompt, ``reasoning`` of completion."""

    prompt_tokens: int
    completion_tokens: int = 0
    total_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(slots=True, kw_only=True)
class Request:
    """One HTTP call, ready but for endpoint and key.

    ``body`` is the JSON object to send; ``rows`` says how many rows share the request (embeddings
    and completions are packed), and ``sizes`` estimates the tokens of each one's text.
    ``estimated_tokens`` is what to reserve before sending; ``answer_tokens`` is the answers' part
    of it: what their parameters allow, or a guess.
    """

    path: str
    body: Mapping[str, Json]
    rows: int
    estimated_tokens: int
    sizes: Sequence[int] = ()
    answer_tokens: int = 0
    is_answer_bounded: bool = False
    headers: Mapping[str, str] | None = None
    query: Mapping[str, str] | None = None
    timeout_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Response:
    """What the API answered to one request with status 200, and how long that took."""

    payload: Json
    latency_s: float
    request_id: str | None = None
    headers: Mapping[str, str] | None = None


@dataclass(slots=True, kw_only=True)
class Reply:
    """One row's share of a response.

    ``output`` is text, or little-endian float32 bytes for an embedding. ``usage`` is None where the
    API said nothing: unknown, never zero.
    """

    output: str | bytes | None
    finish_reason: str | None = None
    usage: Usage | None = None
    response_model: str | None = None
