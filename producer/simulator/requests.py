"""A request's body, read and checked as OpenAI checks it.

The three endpoints become one ``ModelRequest``: rows of text, their tokens, and what shapes
the answers. What the simulation has no use for (temperature, user, ...) is checked at most.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from producer.simulator.errors import ApiError, missing, wrong_type
from producer.simulator.tokens import (
    COMPLETION_ESTIMATE,
    TOKENS_PER_IMAGE,
    TOKENS_PER_MESSAGE,
    TOKENS_PER_NAME,
    TOKENS_PER_REPLY,
    count_tokens,
)

Body = dict[str, Any]

COMPLETION_DEFAULT_TOKENS = 16  # Source: API reference, completions, max_tokens

_ROLES = {"system", "developer", "user", "assistant", "tool", "function"}
_BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "n": (1, 128),
    "max_tokens": (1, float("inf")),
    "max_completion_tokens": (1, float("inf")),
}


class Endpoint(str, Enum):
    """What can be asked of a model."""

    CHAT = "chat/completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"


@dataclass(slots=True, kw_only=True)
class ModelRequest:
    """What is asked, of which model, for which rows.

    Never changed, yet not frozen, like all that is made once per request here: to freeze
    them costs a sixth of the time that an answer takes.
    """

    endpoint: Endpoint
    openai_model: str
    texts: tuple[str, ...]  # one per row
    prompt_tokens: int
    max_tokens: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None  # the answer is JSON; {}: any object
    tool: dict[str, Any] | None = None  # the function that the answer must name
    dimensions: int | None = None
    is_base64: bool = False

    @property
    def estimated_tokens(self) -> int:
        """What a limit of tokens is debited: known before the answer is."""
        if self.endpoint is Endpoint.EMBEDDINGS:
            return self.prompt_tokens
        completion = self.max_tokens or COMPLETION_ESTIMATE
        return self.prompt_tokens + completion * self.n * len(self.texts)


def load_body(raw: bytes) -> Body:
    """The body as an object.

    Raises:
        ApiError: it is not JSON, or no object.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        message = (
            "We could not parse the JSON body of your request. (HINT: This likely means you"
            " aren't using your HTTP library correctly. The OpenAI API expects a JSON payload,"
            " but what was sent was not valid JSON.)"
        )
        raise ApiError(message) from error
    if not isinstance(body, dict):
        raise ApiError("The body of the request must be a JSON object.")
    return body


def read_model(body: Body) -> str:
    """The name of the model that is asked."""
    openai_model = body.get("model")
    if openai_model is None:
        raise ApiError("you must provide a model parameter")
    if not isinstance(openai_model, str):
        raise wrong_type("model", expected="a string", value=openai_model)
    return openai_model


def read_chat(body: Body, *, openai_model: str) -> ModelRequest:
    """A request for a chat completion."""
    messages = body.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise wrong_type("messages", expected="an array of objects", value=messages)
    if not messages:
        message = "Invalid 'messages': empty array. Expected an array with minimum length 1."
        raise ApiError(message, param="messages", code="empty_array")
    _check_common(body)
    texts = []
    tokens = TOKENS_PER_REPLY
    for index, message in enumerate(messages):
        text, message_tokens = _read_message(message, index=index)
        texts.append(text)
        tokens += message_tokens
    if body.get("tools"):
        tokens += len(orjson.dumps(body["tools"])) // 4
    return ModelRequest(
        endpoint=Endpoint.CHAT,
        openai_model=openai_model,
        texts=("\n".join(texts) if len(texts) > 1 else texts[0],),
        prompt_tokens=tokens,
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        n=body.get("n") or 1,
        stop=_read_stop(body),
        json_schema=_read_response_format(body) if "response_format" in body else None,
        tool=_read_tool(body) if "tool_choice" in body else None,
    )


def read_completion(body: Body, *, openai_model: str) -> ModelRequest:
    """A request for completions, of one prompt or of several."""
    if body.get("prompt") is None:
        raise missing("prompt")
    _check_common(body)
    texts, tokens = read_texts(body["prompt"], name="prompt")
    return ModelRequest(
        endpoint=Endpoint.COMPLETIONS,
        openai_model=openai_model,
        texts=texts,
        prompt_tokens=sum(tokens),
        max_tokens=body.get("max_tokens") or COMPLETION_DEFAULT_TOKENS,
        n=body.get("n") or 1,
        stop=_read_stop(body),
    )


def read_texts(value: object, *, name: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The rows and their tokens, of a string, strings, an array of tokens, or several."""
    if isinstance(value, str):
        return (value,), (count_tokens(value),)
    if not isinstance(value, list):
        raise wrong_type(name, expected="a string or an array", value=value)
    if not value:
        raise ApiError(f"Invalid '{name}': empty array.", param=name, code="empty_array")
    if all(isinstance(part, str) for part in value):
        return tuple(value), tuple(map(count_tokens, value))
    rows = [value] if isinstance(value[0], int) else value
    for row in rows:
        if not isinstance(row, list) or not row or not all(type(token) is int for token in row):
            raise ApiError(f"'$.{name}' is invalid. Please check the API reference.", param=name)
    return tuple(" ".join(map(str, row)) for row in rows), tuple(map(len, rows))


def _check_common(body: Body) -> None:
    for name, (least, most) in _BOUNDS.items():
        value = body.get(name)
        if value is None:
            continue
        is_whole = name == "n" or name.startswith("max_")
        if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
            expected = "an integer" if is_whole else "a decimal"
            raise wrong_type(name, expected=expected, value=value)
        if not least <= value <= most:
            bound = f">= {least:g}" if value < least else f"<= {most:g}"
            message = f"Invalid '{name}': expected a value {bound}, but got {value} instead."
            raise ApiError(message, param=name, code="out_of_range")
    if body.get("stream"):
        raise ApiError("This simulation does not stream.", param="stream")


def _read_message(message: object, *, index: int) -> tuple[str, int]:
    """A message's text and tokens."""
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise wrong_type(where, expected="an object", value=message)
    role = message.get("role")
    if role not in _ROLES:
        raise ApiError(f"Invalid value: '{role}'.", param=f"{where}.role", code="invalid_value")
    content = message.get("content")
    tokens = TOKENS_PER_MESSAGE + (TOKENS_PER_NAME if message.get("name") else 0)
    if isinstance(content, str):
        return content, tokens + count_tokens(content)
    if isinstance(content, list):
        parts = [_read_part(part, where=f"{where}.content") for part in content]
        return "\n".join(text for text, _ in parts), tokens + sum(n for _, n in parts)
    if content is None and role == "assistant":
        return "", tokens
    expected = "one of a string or array of objects"
    raise wrong_type(f"{where}.content", expected=expected, value=content)


def _read_part(part: object, *, where: str) -> tuple[str, int]:
    """The text and tokens of one part of a multimodal message."""
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise wrong_type(where, expected="an array of objects with a type", value=part)
    kind = part["type"]
    text = part.get("text") if kind == "text" else part.get("refusal")
    if kind in {"text", "refusal"}:
        if not isinstance(text, str):
            raise wrong_type(f"{where}.text", expected="a string", value=text)
        return text, count_tokens(text)
    # The text stands for the part when prompts are told apart, so it must not lose the data.
    data = orjson.dumps(part.get(kind, part)).decode()
    return f"[{kind}] {data}", TOKENS_PER_IMAGE


def _read_stop(body: Body) -> tuple[str, ...]:
    stop = body.get("stop")
    if stop is None:
        return ()
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        raise wrong_type("stop", expected="a string or an array of strings", value=stop)
    if len(stops) > 4:
        message = "Invalid 'stop': array too long. Expected an array with maximum length 4."
        raise ApiError(message, param="stop", code="array_above_max_length")
    return tuple(one for one in stops if one)


def _read_response_format(body: Body) -> dict[str, Any] | None:
    wanted = body.get("response_format")
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {}
    schema = wanted.get("json_schema") if kind == "json_schema" else None
    if not isinstance(schema, dict) or not isinstance(schema.get("name"), str):
        message = "Invalid value for 'response_format'."
        raise ApiError(message, param="response_format", code="invalid_value")
    inner = schema.get("schema", {})
    if not isinstance(inner, dict):
        where = "response_format.json_schema.schema"
        raise wrong_type(where, expected="an object", value=inner)
    return inner


def _read_tool(body: Body) -> dict[str, Any] | None:
    """The function that the answer has to call; under "auto" the simulation calls none."""
    choice = body.get("tool_choice")
    if choice is None or choice in ("auto", "none"):
        return None
    tools = body.get("tools")
    functions: list[dict[str, Any]] = [
        tool["function"]
        for tool in (tools if isinstance(tools, list) else [])
        if isinstance(tool, dict) and isinstance(tool.get("function"), dict)
    ]
    named = choice.get("function") if isinstance(choice, dict) else None
    if named is not None:
        functions = [tool for tool in functions if tool.get("name") == named.get("name")]
    if not functions:
        message = "Invalid value for 'tool_choice': no such tool is in 'tools'."
        raise ApiError(message, param="tool_choice", code="invalid_value")
    return functions[0]
