"""Ours and MLflow's own flavor over the same models and inputs: the API must see the same.

MLflow's sends from threads, so requests are compared without their order. Where ours differs on
purpose, the difference has its own test below, which shows both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import mlflow.pyfunc
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType

from flavor.client import Client
from flavor.errors import RowError
from flavor.model import OpenAIModel, load_model, read_spec
from flavor.types import Reply, Row

pytestmark = pytest.mark.integration

Values = list[dict[str, Any]]

CHAT = "chat.completions"
TEXTS = ["cats", "a {brace} and }one{", "naïve 😀\nline"]

MODELS: dict[str, tuple[str, dict[str, Any], Values]] = {
    "one variable": (
        CHAT,
        {"messages": [{"role": "user", "content": "Tell me about {animal}."}]},
        [{"animal": text} for text in TEXTS],
    ),
    "several variables": (
        CHAT,
        {"messages": [{"role": "user", "content": "{b} before {a}, {b} again"}]},
        [{"a": "1", "b": "2"}, {"a": "{b}", "b": "{a}"}],
    ),
    "several messages": (
        CHAT,
        {
            "messages": [
                {"role": "system", "content": "You are {style}."},
                {"role": "assistant", "content": "What now?"},
                {"role": "user", "content": "{question}"},
            ]
        },
        [{"style": "terse", "question": "why"}, {"style": "kind", "question": ""}],
    ),
    "role as a variable": (
        CHAT,
        {"messages": [{"role": "{role}", "content": "Hello"}]},
        [{"role": "user"}, {"role": "developer"}],
    ),
    "no messages": (CHAT, {}, [{"content": text} for text in TEXTS]),
    "messages without variables": (
        CHAT,
        {"messages": [{"role": "system", "content": "Translate to French."}]},
        [{"content": text} for text in TEXTS],
    ),
    "escapes": (
        CHAT,
        {"messages": [{"role": "user", "content": 'Answer {{"label": "..."}} for {text}'}]},
        [{"text": text} for text in TEXTS],
    ),
    "escapes only": (
        CHAT,
        {"messages": [{"role": "system", "content": 'Answer {{"a": 1}}'}]},
        [{"content": "x"}],
    ),
    "conversions and formats": (
        CHAT,
        {"messages": [{"role": "user", "content": "{name!r} {name:>8} {name:.2}"}]},
        [{"name": "Ada"}],
    ),
    "multimodal": (
        CHAT,
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is {what}?"},
                        {"type": "image_url", "image_url": {"url": "https://h/{image}.png"}},
                    ],
                }
            ]
        },
        [{"what": "this", "image": "a"}, {"what": "that", "image": "b"}],
    ),
    "completions": (
        "completions",
        {"prompt": "{text}. The sentiment is"},
        [{"text": text} for text in TEXTS],
    ),
    "completions of several variables": (
        "completions",
        {"prompt": "{a} and {b}"},
        [{"a": "1", "b": "2"}],
    ),
    "completions without a prompt": ("completions", {}, [{"prompt": text} for text in TEXTS]),
    "embeddings": ("embeddings", {}, [{"text": text} for text in TEXTS]),
}


@pytest.fixture
def theirs(openai_environment: None, api: Any) -> Callable[..., list[dict[str, Any]]]:
    """What MLflow's own pyfunc sends for these rows."""

    def run(path: str, values: Values, **kwargs: Any) -> list[dict[str, Any]]:
        first = len(api.requests)
        mlflow.pyfunc.load_model(path).predict(pd.DataFrame(values), **kwargs)
        return [recorded.body for recorded in api.requests[first:]]

    return run


@pytest.fixture
def ours(client: Client, api: Any) -> Callable[..., Any]:
    """What ours sends for these rows."""

    async def run(path: str, values: Values, **params: Any) -> list[dict[str, Any]]:
        first = len(api.requests)
        await run_rows(client, path, values, params)
        return [recorded.body for recorded in api.requests[first:]]

    return run


async def run_rows(
    client: Client, path: str, values: Values, params: dict[str, Any]
) -> list[Reply | RowError]:
    model = load_model(read_spec(path), params)
    assert isinstance(model, OpenAIModel)
    rows = [Row(row_id=str(i), index=i, values=value) for i, value in enumerate(values)]
    replies: list[Reply | RowError] = []
    for start in range(0, len(rows), model.rows_per_request):
        request = model.request(rows[start : start + model.rows_per_request])
        replies += model.replies(request, await client.send(request))
    return replies


def unordered(bodies: Sequence[dict[str, Any]], *keys: str) -> list[str]:
    return sorted(json.dumps([body.get(key) for key in keys], sort_keys=True) for body in bodies)


@pytest.mark.parametrize("name", MODELS)
async def test_api_sees_what_mlflow_would_send(
    name: str, save_theirs: Callable[..., str], theirs: Any, ours: Any
) -> None:
    task, kwargs, values = MODELS[name]
    path = save_theirs(task, **kwargs)
    keys = ("model", "messages", "prompt", "input", "encoding_format")

    expected = theirs(path, values)
    sent = await ours(path, values)

    assert unordered(sent, *keys) == unordered(expected, *keys)


@pytest.mark.parametrize("task", [CHAT, "completions", "embeddings"])
async def test_answers_are_mlflows(
    task: str, save_theirs: Callable[..., str], client: Client
) -> None:
    values = [{"text": "one"}, {"text": "three"}]
    path = save_theirs(task)

    expected = list(mlflow.pyfunc.load_model(path).predict(pd.DataFrame(values)))
    replies = await run_rows(client, path, values, {})

    outputs = [reply.output for reply in replies if isinstance(reply, Reply)]
    if task == "embeddings":
        assert [list(memoryview(out).cast("f")) for out in outputs if isinstance(out, bytes)] == [
            list(vector) for vector in expected
        ]
    else:
        assert outputs == expected


async def test_signature_defaults_and_job_params_are_sent_alike(
    save_theirs: Callable[..., str], theirs: Any, ours: Any
) -> None:
    signature = ModelSignature(
        inputs=Schema([ColSpec("string")]),
        outputs=Schema([ColSpec("string")]),
        params=ParamSchema(
            [ParamSpec("temperature", "double", 0.25), ParamSpec("max_tokens", "integer", 9)]
        ),
    )
    path = save_theirs(CHAT, signature=signature)
    values = [{"content": "x"}]

    assert unordered(await ours(path, values), "temperature", "max_tokens") == unordered(
        theirs(path, values), "temperature", "max_tokens"
    )
    assert unordered(await ours(path, values, temperature=1.0), "temperature") == unordered(
        theirs(path, values, params={"temperature": 1.0}), "temperature"
    )


@pytest.mark.parametrize(
    ("task", "kwargs"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "Sentiment of {text}"}]}),
        ("completions", {"prompt": "Sentiment of {text}"}),
        (CHAT, {}),
        ("embeddings", {}),
    ],
)
async def test_the_only_column_that_a_signature_names_fills_the_only_variable(
    task: str, kwargs: dict[str, Any], save_theirs: Callable[..., str], theirs: Any, ours: Any
) -> None:
    """As it was logged with a signature inferred from the data: MLflow takes no other column."""
    signature = ModelSignature(inputs=Schema([ColSpec("string", "review")]))
    path = save_theirs(task, signature=signature, **kwargs)
    values = [{"review": text} for text in TEXTS]

    keys = ("messages", "prompt", "input")
    assert unordered(await ours(path, values), *keys) == unordered(theirs(path, values), *keys)


async def test_batch_size_packs_alike(
    save_theirs: Callable[..., str], theirs: Any, ours: Any
) -> None:
    signature = ModelSignature(
        inputs=Schema([ColSpec("string")]),
        outputs=Schema([ColSpec("string")]),
        params=ParamSchema([ParamSpec("batch_size", "integer", 2)]),
    )
    path = save_theirs("completions", signature=signature)
    values = [{"prompt": str(i)} for i in range(5)]

    assert unordered(await ours(path, values), "prompt") == unordered(
        theirs(path, values), "prompt"
    )


async def test_deviation_logged_parameters_are_sent(
    save_theirs: Callable[..., str], theirs: Any, ours: Any
) -> None:
    """MLflow keeps ``temperature`` with the model and never sends it."""
    path = save_theirs(CHAT, temperature=0.1, stop=["\n"])
    values = [{"content": "x"}]

    assert unordered(theirs(path, values), "temperature", "stop") == ["[null, null]"]
    assert unordered(await ours(path, values), "temperature", "stop") == ['[0.1, ["\\n"]]']


async def test_deviation_one_variable_is_filled_by_name(
    save_theirs: Callable[..., str], theirs: Any, client: Client
) -> None:
    """MLflow fills it from the first text column, whatever that is called."""
    path = save_theirs(CHAT, messages=[{"role": "user", "content": "Hi {name}"}])
    values = [{"password": "hunter2"}]

    assert theirs(path, values)[0]["messages"][0]["content"] == "Hi hunter2"
    with pytest.raises(RowError, match="'name' is missing"):
        await run_rows(client, path, values, {})


async def test_deviation_other_keys_of_a_message_survive(
    save_theirs: Callable[..., str], theirs: Any, ours: Any
) -> None:
    """MLflow sends role and content alone, and the API refuses a tool's message without its id."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "{q}", "name": "Ada"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "{{}}", "tool_call_id": "c1"},
    ]
    path = save_theirs(CHAT, messages=messages)

    dropped = theirs(path, [{"q": "x"}])[0]["messages"]
    kept = (await ours(path, [{"q": "x"}]))[0]["messages"]

    assert [set(message) for message in dropped] == [{"role", "content"}] * 3
    assert kept == [{**messages[0], "content": "x"}, messages[1], {**messages[2], "content": "{}"}]


async def test_deviation_a_null_is_an_error(
    save_theirs: Callable[..., str], theirs: Any, client: Client
) -> None:
    """MLflow writes "nan" into the prompt, where the model's signature lets it through."""
    anything = AnyType()  # type: ignore[no-untyped-call]
    signature = ModelSignature(inputs=Schema([ColSpec("string", "a"), ColSpec(anything, "b")]))
    path = save_theirs(
        CHAT, messages=[{"role": "user", "content": "{a}, {b}"}], signature=signature
    )
    values: Values = [{"a": "x", "b": "y"}, {"a": "x", "b": float("nan")}]

    sent = [body["messages"][0]["content"] for body in theirs(path, values)]

    assert "x, nan" in sent
    with pytest.raises(RowError, match="'b' is null"):
        await run_rows(client, path, values, {})


async def test_deviation_embeddings_take_the_column_by_name(
    save_theirs: Callable[..., str], theirs: Any, ours: Any
) -> None:
    """MLflow embeds the first text column."""
    path = save_theirs("embeddings")
    values = [{"id": "row-1", "text": "hello"}]

    assert theirs(path, values)[0]["input"] == ["row-1"]
    assert (await ours(path, values))[0]["input"] == ["hello"]


async def test_deviation_chat_history_is_accepted(
    save_theirs: Callable[..., str], ours: Any
) -> None:
    system = {"role": "system", "content": "Be {{terse}}."}
    history = [{"role": "user", "content": "{not a variable}"}]
    path = save_theirs(CHAT, messages=[system])

    as_list = await ours(path, [{"messages": history}])
    as_text = await ours(path, [{"messages": json.dumps(history)}])

    expected = [{"role": "system", "content": "Be {terse}."}, *history]
    assert as_list[0]["messages"] == as_text[0]["messages"] == expected


async def test_deviation_completions_are_packed_by_16(
    save_theirs: Callable[..., str], theirs: Any, ours: Any
) -> None:
    """MLflow packs 1024: one lost response would repeat, and pay for, all of them."""
    path = save_theirs("completions")
    values = [{"prompt": str(i)} for i in range(20)]

    assert [len(body["prompt"]) for body in theirs(path, values)] == [20]
    assert [len(body["prompt"]) for body in await ours(path, values)] == [16, 4]
