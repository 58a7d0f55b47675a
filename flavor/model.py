"""The model that rows run through: renders requests, reads responses. No I/O once it is loaded.

Callers import from here: ``read_spec`` (what was logged), ``check_params``, ``load_model``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from flavor.errors import ErrorInfo, InputError, RowError
from flavor.loading import read_spec
from flavor.params import RequestParams, check_params, overlay, sort_params
from flavor.pyfunc import PyfuncModel, check_pyfunc_params, load_pyfunc
from flavor.replies import (
    Reader,
    RowReply,
    read_chat,
    read_completions,
    read_embeddings,
    read_replies,
)
from flavor.spec import ModelSpec, compile_template
from flavor.template import compile_messages, prepare, template_error
from flavor.tokens import estimate_messages, estimate_tokens
from flavor.types import Json, Request, Response, Row, Task

__all__ = [
    "ModelSpec",
    "OpenAIModel",
    "PyfuncModel",
    "RowReply",
    "check_params",
    "check_pyfunc_params",
    "load_model",
    "read_spec",
]

PATHS = {
    Task.CHAT: "/chat/completions",
    Task.COMPLETIONS: "/completions",
    Task.EMBEDDINGS: "/embeddings",
}
READERS: Mapping[Task, Reader] = {
    Task.CHAT: read_chat,
    Task.COMPLETIONS: read_completions,
    Task.EMBEDDINGS: read_embeddings,
}
ROWS_PER_REQUEST = {
    Task.CHAT: 1,
    # MLflow's own for Azure (openai/model.py, _get_api_config). Not its 1024: a lost response
    # repeats the whole pack.
    Task.COMPLETIONS: 16,
    # Answers of 2 MB each, in memory that is used again and again. With 2,048 rows a row took twice
    # the CPU (16 MB of new memory per answer, several times over), 256 requests in flight 4 GB, and
    # a kill repeated eight times as many rows. An account's tokens still run out long before its
    # requests: Azure gives 6 requests a minute with every 1,000 tokens (its guide "Quota").
    Task.EMBEDDINGS: 256,
}
MOST_ROWS_PER_REQUEST = 2048  # source: openai 3.54.0, resources/embeddings.py, create


def load_model(spec: ModelSpec, params: Mapping[str, Json]) -> OpenAIModel | PyfuncModel:
    """Ready a model for rows. ``params`` are the job's; they win over what was logged.

    Blocks for as long as a pyfunc takes to load; anything else is ready at once.

    Raises:
        InputError: a parameter is unknown, or the model cannot be loaded.
    """
    if spec.task is Task.PYFUNC:
        return load_pyfunc(spec, params)
    return OpenAIModel(spec, params)


class OpenAIModel:
    """A model of one of OpenAI's three tasks with its effective parameters."""

    def __init__(self, spec: ModelSpec, params: Mapping[str, Json]) -> None:
        check_params(spec.task, params)
        self.spec = spec
        self.params: Mapping[str, Json] = overlay(
            _defaults(spec.task), {"model": spec.openai_model}, spec.params, params
        )
        self._request_params = sort_params(spec.task, self.params)
        batch_size = self._request_params.batch_size or ROWS_PER_REQUEST[spec.task]
        self.rows_per_request = min(batch_size, MOST_ROWS_PER_REQUEST)
        self._reader = READERS[spec.task]
        self._template = compile_template(
            Task.COMPLETIONS if spec.task is Task.EMBEDDINGS else spec.task,
            "{text}" if spec.task is Task.EMBEDDINGS else spec.template,
            syntax=spec.syntax,
        )
        self._preamble = _preamble(spec)

    @property
    def openai_model(self) -> str:
        """The name that is sent: the logged one unless the job overrides it."""
        return str(self.params["model"])

    def request(self, rows: Sequence[Row]) -> Request:
        """Render the rows into one request. Rows that share one must have the same ``params``.

        Raises:
            RowError: a row cannot be rendered or has an unknown parameter. In a pack it does not
            say which:
                ask ``estimate_tokens`` of each row first, which raises the same.
        """
        params = self._params_of(rows)
        if self.spec.task is Task.CHAT:
            messages = self._messages(rows[0])
            return self._request(
                params, {"messages": messages}, sizes=(estimate_messages(messages),)
            )
        texts = [self._text(row) for row in rows]
        field = "prompt" if self.spec.task is Task.COMPLETIONS else "input"
        return self._request(params, {field: texts}, sizes=list(map(estimate_tokens, texts)))

    def replies(self, request: Request, response: Response) -> list[RowReply]:
        """What the response says to each row of the request, in row order.

        Raises:
            TransientError: the payload is malformed; it may have been cut off on its way.
        """
        return read_replies(request, response, reader=self._reader)

    def estimate_tokens(self, row: Row) -> int:
        """What to reserve for one row: prompt and answer.

        Raises:
            RowError: the row cannot be rendered.
        """
        params = self._params_of([row])
        if self.spec.task is Task.CHAT:
            return params.reserved_tokens + estimate_messages(self._messages(row))
        return params.reserved_tokens + estimate_tokens(self._text(row))

    def _request(
        self, params: RequestParams, filled: Mapping[str, Json], *, sizes: Sequence[int]
    ) -> Request:
        rows = len(sizes)
        return Request(
            path=PATHS[self.spec.task],
            body={**params.body, **filled},
            rows=rows,
            estimated_tokens=sum(sizes) + rows * params.reserved_tokens,
            sizes=sizes,
            answer_tokens=rows * params.answer_tokens,
            is_answer_bounded=params.is_answer_bounded,
            headers=params.headers,
            query=params.query,
            timeout_s=params.timeout_s,
        )

    def _params_of(self, rows: Sequence[Row]) -> RequestParams:
        own = rows[0].params
        if any(row.params != own for row in rows):
            raise ValueError("rows of one request must have the same params")
        if not own:
            return self._request_params
        try:
            check_params(self.spec.task, own)
        except InputError as error:
            raise RowError(ErrorInfo(type="InvalidParameter", message=str(error))) from error
        return sort_params(self.spec.task, overlay(self.params, own))

    def _messages(self, row: Row) -> list[Json]:
        if self.spec.accepts_messages and row.values.get("messages") is not None:
            return [*self._preamble, *_read_history(row.values["messages"])]
        messages: list[Json] = self._render(row)
        return messages

    def _text(self, row: Row) -> str:
        text = str(self._render(row))
        if not text and self.spec.task is Task.EMBEDDINGS:
            # Source: openai 3.54.0, resources/embeddings.py: an input "cannot be an empty string".
            raise RowError(ErrorInfo(type="EmptyInput", message="an empty text has no embedding"))
        return text

    def _render(self, row: Row) -> Json:
        values = prepare(self._template.variables, row.values, aliases=self.spec.aliases)
        try:
            return self._template.render(values)
        except (ArithmeticError, TypeError, ValueError) as error:  # {x:.2f} of a text, of 10**400
            raise template_error(f"a value does not fit its format: {error}") from error


def _defaults(task: Task) -> Mapping[str, Json]:
    """base64 is a quarter of the bytes of a list of numbers; the SDK asks for it, too."""
    return {"encoding_format": "base64"} if task is Task.EMBEDDINGS else {}


def _preamble(spec: ModelSpec) -> list[Json]:
    """The messages that stand before a row's own chat history, such as a system message."""
    if not spec.accepts_messages or not spec.template:
        return []
    messages: list[Json] = compile_messages(spec.template, spec.syntax).render({})
    return messages


def _read_history(messages: Json) -> list[Json]:
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except ValueError as error:
            raise template_error("'messages' is neither a list nor the JSON text of one") from error
    if not isinstance(messages, (list, tuple)) or not messages:
        raise template_error("'messages' is no list of messages")
    if not all(isinstance(message, Mapping) and "role" in message for message in messages):
        raise template_error("'messages': every message must be an object with a 'role'")
    return list(messages)
