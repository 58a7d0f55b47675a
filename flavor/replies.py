"""What a response says to each of its rows.

An answer that does not have the shape it must have was cut off or garbled on its way: that is
passing, and the request goes again. A filtered answer is the row's own fault: that row is dead, the
others of its pack live.
"""

from __future__ import annotations

import binascii
import json
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import pybase64

from flavor.errors import ErrorInfo, RowError, TransientError
from flavor.types import Json, Reply, Request, Response
from flavor.usage import read_usage, split_usage

RowReply: TypeAlias = Reply | RowError
"""A row's share of a response: its answer, or why it will never have one."""

Reader: TypeAlias = Callable[[Request, Mapping[str, Json]], list[RowReply]]


def read_replies(request: Request, response: Response, *, reader: Reader) -> list[RowReply]:
    """Every row's share of the response, in row order.

    Raises:
        TransientError: the payload is not what the API answers with.
    """
    payload = response.payload
    try:
        return reader(request, payload)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        info = ErrorInfo(
            type="MalformedResponse",
            message=f"the answer has not the expected shape: {_describe(payload, error)}",
            request_id=response.request_id,
        )
        raise TransientError(info) from error


def read_chat(_: Request, payload: Mapping[str, Json]) -> list[RowReply]:
    """One row: the first choice's text, refusal, or tool calls as JSON."""
    choice = payload["choices"][0]
    reply = Reply(
        output=_message_output(choice["message"]),
        finish_reason=_name(choice.get("finish_reason")),
        usage=read_usage(payload.get("usage")),
        response_model=_name(payload.get("model")),
    )
    return [_unless_filtered(reply)]


def read_completions(request: Request, payload: Mapping[str, Json]) -> list[RowReply]:
    """One row per prompt: its first choice."""
    choices = sorted(payload["choices"], key=lambda choice: choice["index"])
    per_row = len(choices) // request.rows  # above 1 with the parameter ``n``
    if per_row == 0 or len(choices) != per_row * request.rows:
        raise ValueError(f"{len(choices)} choices for {request.rows} prompts")
    answers = [
        [_text(choice["text"]) for choice in choices[start : start + per_row]]
        for start in range(0, len(choices), per_row)
    ]
    usages = split_usage(
        read_usage(payload.get("usage")),
        request.sizes,
        answers=[sum(len(text or "") for text in texts) for texts in answers],
    )
    firsts = zip(choices[::per_row], answers, usages, strict=True)
    return [
        _unless_filtered(
            Reply(
                output=texts[0],
                finish_reason=_name(choice.get("finish_reason")),
                usage=usage,
                response_model=_name(payload.get("model")),
            )
        )
        for choice, texts, usage in firsts
    ]


def read_embeddings(request: Request, payload: Mapping[str, Json]) -> list[RowReply]:
    """One row per text: its vector as little-endian float32."""
    data = sorted(payload["data"], key=lambda item: item["index"])
    if [item["index"] for item in data] != list(range(request.rows)):
        raise ValueError(f"{len(data)} embeddings for {request.rows} texts")
    usages = split_usage(read_usage(payload.get("usage")), request.sizes, answers=request.sizes)
    model = _name(payload.get("model"))
    return [
        Reply(output=_vector(item["embedding"]), usage=usage, response_model=model)
        for item, usage in zip(data, usages, strict=True)
    ]


def _message_output(message: Mapping[str, Json]) -> str | None:
    """Text, else tool calls (or the older function call) as JSON, else the text of a refusal."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    for value in (content, message.get("tool_calls"), message.get("function_call")):
        if value:
            return json.dumps(value, ensure_ascii=False)
    refusal = message.get("refusal")
    return None if refusal is None else str(refusal)


def _text(text: Json) -> str | None:
    """A completion's text; JSON where an endpoint answers with something else."""
    return text if text is None or isinstance(text, str) else json.dumps(text, ensure_ascii=False)


def _name(name: Json) -> str | None:
    """A model or a finish reason; whatever is no text names nothing."""
    return name if isinstance(name, str) else None


def _unless_filtered(reply: Reply) -> RowReply:
    if reply.finish_reason != "content_filter":
        return reply
    info = ErrorInfo(
        type="ContentFilter",
        code="content_filter",
        message="the endpoint's content filter withheld the answer",
        status=200,
    )
    return RowError(info, usage=reply.usage)


def _vector(embedding: Json) -> bytes:
    raw = _decode(embedding) if isinstance(embedding, str) else _pack(embedding)
    if not raw or len(raw) % 4:
        raise ValueError(f"an embedding of {len(raw)} bytes")
    return raw


def _decode(text: str) -> bytes:
    """Little-endian float32 already (source: openai 3.54.0, resources/embeddings.py)."""
    try:
        return pybase64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("an embedding that is not base64") from error


def _pack(numbers: Sequence[float]) -> bytes:
    floats = array("f", numbers)
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tobytes()


def _describe(payload: Json, error: Exception) -> str:
    """Shape only: an answer's text belongs in the outputs, not in an error."""
    if not isinstance(payload, Mapping):
        return f"{type(payload).__name__} in place of an object"
    if isinstance(problem := payload.get("error"), Mapping):
        return str(problem.get("message"))[:200]  # some gateways report errors with status 200
    return f"{type(error).__name__} {error}; keys {sorted(map(str, payload))[:8]}"
