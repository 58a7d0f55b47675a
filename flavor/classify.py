"""What a failed request means: again later, this row is dead, or stop the job.

The rules follow the OpenAI SDK's (source: openai 3.54.0, _base_client.py, _should_retry: 408, 409,
429 and 5xx go again) and OpenAI's guide "Error codes"; where they say nothing, a rule gives its
reason.
"""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from socket import gaierror

import aiohttp

from flavor.errors import (
    ErrorInfo,
    JobError,
    RequestError,
    RowError,
    ThrottledError,
    TransientError,
)
from flavor.types import Json
from flavor.wire import AnswerTooLargeError

MESSAGE_CHARS = 500

# 425 Too Early says itself that the same request may be sent again (source: RFC 8470).
_PASSING = {408, 409, 425}
_ROW = {400, 404, 413, 422, 451}
# An account that cannot pay answers 429, or 400, or 403, until somebody pays (source: guide "Error
# codes").
_NO_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_UNCONNECTED = (ConnectionRefusedError, gaierror, aiohttp.ClientConnectorError)
# OpenAI's and Azure's words for a model that is not there for anybody's row.
_NO_MODEL = {"model_not_found", "DeploymentNotFound", "OperationNotSupported"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    """What an error body says; empty where it says nothing."""

    message: str = ""
    type: str | None = None
    code: str | None = None
    is_json: bool = False


def classify_response(
    status: int, raw: bytes, *, headers: Mapping[str, str], redact: Callable[[str], str]
) -> RequestError:
    """The error that a response with ``status`` is. Never raises, whatever the body holds."""
    problem = _read_problem(raw)
    info = ErrorInfo(
        type=redact(problem.type or f"HTTP {status}"),
        message=fold(redact(_message(status, problem, headers=headers))),
        status=status,
        code=_redacted(problem.code, redact),
        request_id=_redacted(read_request_id(headers), redact),
    )
    retry_after_s = read_retry_after(headers)
    if problem.code in _NO_QUOTA or problem.type in _NO_QUOTA:
        return JobError(info)
    if status == 429:
        # A request above the whole minute's limit is refused for ever, with the code of one that
        # must wait.
        if problem.message.startswith("Request too large"):
            return RowError(info)
        return ThrottledError(info, retry_after_s=retry_after_s, headers=headers)
    if status >= 500 or status in _PASSING:
        return TransientError(info, retry_after_s=retry_after_s)
    return RowError(info) if _is_rows_fault(status, problem) else JobError(info)


def classify_exception(error: Exception, *, redact: Callable[[str], str]) -> RequestError:
    """The error that a failure below HTTP is: timeouts and broken connections go again."""
    name = type(error).__name__
    if isinstance(error, asyncio.TimeoutError):
        return TransientError(ErrorInfo(type="Timeout", message="no answer in time"))
    info = ErrorInfo(type=name, message=fold(redact(f"{name}: {error}")))
    # A handshake's errors come as they are from flavor.pool, later ones as a ClientOSError.
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError, aiohttp.InvalidURL)):
        return JobError(info, is_unsent=True)  # no waiting mends a certificate or an address
    if isinstance(error, AnswerTooLargeError):
        return RowError(info)  # it would be as large again; of a pack, halves may pass
    return TransientError(info, is_unsent=isinstance(error, _UNCONNECTED))


def garbled(raw: bytes, request_id: str | None) -> TransientError:
    """A 200 whose body is no JSON: cut off, or from a proxy on the way."""
    message = f"the answer is not JSON ({len(raw)} bytes)"
    info = ErrorInfo(type="MalformedResponse", message=message, status=200, request_id=request_id)
    return TransientError(info)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or ``retry-after`` (seconds, or a date), if given."""
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / divisor
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    return _seconds_until(headers.get("retry-after", ""))


def read_request_id(headers: Mapping[str, str]) -> str | None:
    """OpenAI's name for the request, or Azure's."""
    return headers.get("x-request-id") or headers.get("apim-request-id")


def fold(message: str) -> str:
    """One line of a sane length."""
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE_CHARS else line[: MESSAGE_CHARS - 1] + "…"


def _is_rows_fault(status: int, problem: _Problem) -> bool:
    """Is this input refused, or any? In doubt the job stops: it can resume, a dead row is dead."""
    if problem.code in _NO_MODEL or status not in _ROW:
        return False
    # An address that is not the API's answers 404 in a web server's words.
    return not (status == 404 and not problem.is_json)


def _message(status: int, problem: _Problem, *, headers: Mapping[str, str]) -> str:
    if 300 <= status < 400:
        target = headers.get("location", "elsewhere").partition("?")[0]
        return f"the endpoint redirects to {target}; check OPENAI_BASE_URL"
    text = problem.message or "no error text"
    if status == 404 and not problem.is_json:
        return f"no API at this address; check OPENAI_BASE_URL ({text})"
    return text


def _read_problem(raw: bytes) -> _Problem:
    text = raw.decode("utf-8", "replace")
    try:
        body: Json = json.loads(text)
    except ValueError:
        return _Problem(message=text)
    if isinstance(body, list) and body:
        body = body[0]  # Gemini's compatible endpoint
    if not isinstance(body, Mapping):
        return _Problem(message=str(body))
    problem = body.get("error", body)
    if not isinstance(problem, Mapping):
        return _Problem(message=str(problem), is_json=True)
    return _Problem(
        message=str(problem.get("message") or problem.get("detail") or json.dumps(problem)),
        type=_text(problem.get("type")),
        code=_text(problem.get("code")),
        # FastAPI's own "not found" is JSON, too, and no answer of the API's.
        is_json=problem != {"detail": "Not Found"},
    )


def _redacted(text: str | None, redact: Callable[[str], str]) -> str | None:
    return None if text is None else redact(text)


def _text(value: Json) -> str | None:
    return None if value is None else str(value)


def _seconds_until(date: str) -> float | None:
    try:
        then = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=timezone.utc)  # "-0000" says UTC without saying so
    return max((then - datetime.now(timezone.utc)).total_seconds(), 0.0)
