"""What a failure means, from bodies of every shape that servers send."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import aiohttp
import orjson
import pytest

from flavor.classify import (
    MESSAGE_CHARS,
    classify_exception,
    classify_response,
    read_retry_after,
)
from flavor.errors import JobError, RequestError, RowError, ThrottledError, TransientError
from flavor.redact import redact, redact_url


def classify(status: int, body: Any = None, **headers: str) -> RequestError:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return classify_response(status, raw, headers=headers, redact=redact)


def error(message: str = "m", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, error(), RowError),
        (400, error(code="content_filter"), RowError),
        (400, error(code="billing_hard_limit_reached"), JobError),
        (400, error(code="model_not_found"), JobError),
        (402, error(), JobError),
        (404, error(code="DeploymentNotFound"), JobError),
        (404, error(), RowError),
        (404, {"detail": "Not Found"}, JobError),
        (404, b"", JobError),
        (405, error(), JobError),
        (418, error(), JobError),
        (429, error(type="insufficient_quota"), JobError),
        (429, error("Request too large for gpt-4o: Limit 1, Requested 2"), RowError),
        (429, b"slow down", ThrottledError),
        (500, error(), TransientError),
        (529, b"overloaded", TransientError),
        (307, b"", JobError),
    ],
)
def test_who_is_at_fault(status: int, body: Any, kind: type[RequestError]) -> None:
    assert type(classify(status, body)) is kind


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (error("a\n  b", code=7), "a b", "7"),
        ({"error": "just text"}, "just text", None),
        ({"message": "flat", "code": "c"}, "flat", "c"),
        ({"detail": "fastapi"}, "fastapi", None),
        ([error("gemini")], "gemini", None),
        ("a string", "a string", None),
        (b"<html>\xff</html>", "<html>\ufffd</html>", None),
        (b"", "no error text", None),
        ([], "[]", None),
    ],
)
def test_the_message_is_found_whatever_the_body(body: Any, message: str, code: str | None) -> None:
    info = classify(400, body).info

    assert (info.message, info.code) == (message, code)


def test_a_long_message_is_cut() -> None:
    assert len(classify(400, error("x" * 9999)).info.message) == MESSAGE_CHARS


def test_ids_and_types_are_kept() -> None:
    openai = classify(400, error(type="invalid_request_error"), **{"x-request-id": "r1"}).info
    azure = classify(500, b"", **{"apim-request-id": "r2"}).info

    assert (openai.type, openai.status, openai.request_id) == ("invalid_request_error", 400, "r1")
    assert (azure.type, azure.request_id) == ("HTTP 500", "r2")


def test_a_redirect_names_the_variable_to_check() -> None:
    info = classify(301, b"", location="https://h/v2?key=secret").info

    assert info.message == "the endpoint redirects to https://h/v2; check OPENAI_BASE_URL"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "600.5"}, 600.5),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "1"}, 1.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 -0000"}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers) == seconds


def test_retry_after_a_date_ahead() -> None:
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=300), usegmt=True)

    seconds = read_retry_after({"retry-after": date})

    assert seconds is not None
    assert 295 < seconds <= 300


@pytest.mark.parametrize(
    ("failure", "kind", "type_"),
    [
        (asyncio.TimeoutError(), TransientError, "Timeout"),
        (aiohttp.ServerTimeoutError(), TransientError, "Timeout"),
        (aiohttp.ServerDisconnectedError(), TransientError, "ServerDisconnectedError"),
        (ConnectionResetError("reset"), TransientError, "ConnectionResetError"),
        (aiohttp.ClientPayloadError("cut"), TransientError, "ClientPayloadError"),
        (aiohttp.InvalidURL("x"), JobError, "InvalidUrlClientError"),
    ],
)
def test_failures_below_http(failure: Exception, kind: type[RequestError], type_: str) -> None:
    found = classify_exception(failure, redact=redact)

    assert type(found) is kind
    if kind is TransientError:
        assert found.info.type == type_


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key sk-proj-abcdefgh12 used", "key [redacted] used"),
        ("provided: sk-abc***********xyz.", "provided: [redacted]"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer [redacted]"),
        ("http://me:pass@host/x", "http://[redacted]@host/x"),
        ("https://h/x?api-key=abc&b=1", "https://h/x?api-key=[redacted]&b=1"),
        ("https://h/x?sig=a%2Fb", "https://h/x?sig=[redacted]"),
        ("a task-based, risk-free sk-learn note", "a task-based, risk-free sk-learn note"),
        ("my hunter22 word", "my [redacted] word"),
    ],
)
def test_secrets_are_hidden_and_words_are_not(text: str, expected: str) -> None:
    assert redact(text, ["hunter22"]) == expected


def test_an_address_is_shown_without_user_and_query() -> None:
    assert redact_url("https://me:pw@h:8/v1?key=a#b") == "https://h:8/v1"
