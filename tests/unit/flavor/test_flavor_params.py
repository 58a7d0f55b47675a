"""Parameters: known to the SDK or refused, layered, and put where the SDK would put them."""

from __future__ import annotations

from typing import Any

import pytest

from flavor.errors import InputError
from flavor.params import check_params, known_params, overlay, sort_params
from flavor.types import Task

OPENAI_TASKS = [Task.CHAT, Task.COMPLETIONS, Task.EMBEDDINGS]


@pytest.mark.parametrize("task", OPENAI_TASKS)
def test_what_rows_fill_is_no_parameter(task: Task) -> None:
    known = known_params(task)

    assert not {"self", "messages", "prompt", "input"} & known
    assert {"model", "user", "extra_body", "extra_headers", "extra_query", "timeout"} <= known


@pytest.mark.parametrize(
    ("task", "params"),
    [
        (Task.CHAT, {"temperature": 0, "tools": [], "response_format": {"type": "text"}}),
        (Task.CHAT, {"stream": False, "max_retries": 3, "timeout": 2.5}),
        (Task.CHAT, {"extra_body": {"top_k": 3}, "extra_headers": {"a": "b"}, "stop": None}),
        (Task.COMPLETIONS, {"best_of": 2, "batch_size": 8}),
        (Task.EMBEDDINGS, {"dimensions": 8, "encoding_format": "float"}),
        (Task.PYFUNC, {"anything": 1}),
    ],
)
def test_what_the_task_has_is_accepted(task: Task, params: dict[str, Any]) -> None:
    check_params(task, params)


@pytest.mark.parametrize(
    ("task", "params", "reason"),
    [
        (Task.CHAT, {"temprature": 0}, "'temprature' for chat.completions; did you mean 'temperat"),
        (Task.CHAT, {"zzz": 0}, "'zzz' for chat.completions$"),
        (Task.CHAT, {"messages": []}, "'messages'"),
        (Task.CHAT, {"batch_size": 8}, "'batch_size'"),
        (Task.EMBEDDINGS, {"temperature": 0}, "'temperature' for embeddings"),
        (Task.CHAT, {"stream": True}, "streaming"),
        (Task.CHAT, {"stream_options": {"include_usage": True}}, "streaming"),
        (Task.CHAT, {"extra_body": {"stream": True}}, "streaming"),
        (Task.CHAT, {"extra_body": {"messages": []}}, "comes from the rows"),
        (Task.CHAT, {"extra_headers": "a: b"}, "must be an object"),
        (Task.CHAT, {"extra_headers": {"a b": "c"}}, "'a b' is no name of a header"),
        (Task.CHAT, {"extra_headers": {"a\nb": "c"}}, "is no name of a header"),
        (Task.CHAT, {"extra_headers": {"a": "b\r\nc: d"}}, "'a' must be printable ASCII"),
        (Task.CHAT, {"extra_headers": {"a": "\x00"}}, "'a' must be printable ASCII"),
        (Task.CHAT, {"timeout": "soon"}, "seconds"),
        (Task.CHAT, {"timeout": True}, "seconds"),
        (Task.COMPLETIONS, {"batch_size": 0}, "whole number"),
        (Task.COMPLETIONS, {"batch_size": 1.5}, "whole number"),
        (Task.EMBEDDINGS, {"encoding_format": "hex"}, "'float' or 'base64'"),
    ],
)
def test_what_cannot_work_is_refused(task: Task, params: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_params(task, params)


@pytest.mark.parametrize(
    "header", ["Authorization", "api-key", "X-API-Key", "COOKIE", "Proxy-Authorization"]
)
def test_a_credential_is_no_parameter(header: str) -> None:
    with pytest.raises(InputError, match="the workers' environment") as caught:
        check_params(Task.CHAT, {"extra_headers": {header: "hush"}})

    assert header in str(caught.value)
    assert "hush" not in str(caught.value)


def test_later_layers_win_and_a_null_takes_away() -> None:
    layers = {"a": 1, "b": 1, "c": 1}, {"b": 2, "c": 2}, {"c": None}

    assert overlay(*layers) == {"a": 1, "b": 2}


def test_parameters_go_where_the_sdk_would_put_them() -> None:
    params = {
        "model": "m",
        "temperature": 0,
        "extra_body": {"top_k": 3, "temperature": 1},
        "extra_headers": {"X-A": 1},
        "extra_query": {"q": 2},
        "timeout": 3,
        "batch_size": 4,
        "max_retries": 5,
        "stream": False,
    }

    sorted_params = sort_params(Task.COMPLETIONS, params)

    assert sorted_params.body == {"model": "m", "temperature": 1, "top_k": 3}
    assert sorted_params.headers == {"X-A": "1"}
    assert sorted_params.query == {"q": "2"}
    assert (sorted_params.timeout_s, sorted_params.batch_size) == (3, 4)
