"""The model without a socket: what rows become and what responses become."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from flavor.errors import InputError, RowError, TransientError
from flavor.model import ModelSpec, OpenAIModel, load_model
from flavor.spec import read_slots
from flavor.template import Syntax
from flavor.types import Reply, Request, Response, Row, Task, Usage

USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 7,
    "total_tokens": 37,
    "prompt_tokens_details": {"cached_tokens": 16},
    "completion_tokens_details": {"reasoning_tokens": 4},
}


def make_model(
    task: Task = Task.CHAT, template: Any = None, /, *, job: Any = None, **params: Any
) -> OpenAIModel:
    slots = read_slots(task, template, syntax=Syntax.FORMAT, column=None)
    spec = ModelSpec(
        uri="m",
        resolved_uri="m",
        task=task,
        openai_model="gpt-4o-mini",
        template=template,
        variables=slots.variables,
        aliases=slots.aliases,
        accepts_messages=slots.accepts_messages,
        params=params,
    )
    model = load_model(spec, job or {})
    assert isinstance(model, OpenAIModel)
    return model


def make_rows(*texts: Any, **params: Any) -> list[Row]:
    return [
        Row(row_id=str(i), index=i, values={"text": text}, params=params or None)
        for i, text in enumerate(texts)
    ]


def replies(model: OpenAIModel, rows: list[Row], payload: Any) -> list[Reply | RowError]:
    return model.replies(model.request(rows), Response(payload=payload, latency_s=0.1))


def chat(message: dict[str, Any], finish_reason: str = "stop") -> dict[str, Any]:
    choices = [{"index": 0, "message": message, "finish_reason": finish_reason}]
    return {"model": "m-1", "choices": choices, "usage": USAGE}


def test_logged_loses_to_job_loses_to_row() -> None:
    model = make_model(job={"top_p": 2, "seed": 2}, temperature=1, top_p=1, seed=1)

    body = model.request(make_rows("x", seed=3, temperature=None)).body

    assert {key: body.get(key) for key in ("temperature", "top_p", "seed")} == {
        "temperature": None,
        "top_p": 2,
        "seed": 3,
    }
    assert "temperature" not in body
    assert model.params == {"model": "gpt-4o-mini", "temperature": 1, "top_p": 2, "seed": 2}


def test_a_rows_unknown_parameter_is_its_own_fault() -> None:
    with pytest.raises(RowError, match="'sed'.*'seed'") as caught:  # noqa: RUF043 - a pattern
        make_model().request(make_rows("x", sed=1))

    assert caught.value.info.type == "InvalidParameter"


def test_a_jobs_unknown_parameter_is_refused_at_load() -> None:
    with pytest.raises(InputError, match="'sed'"):
        make_model(job={"sed": 1})


def test_the_job_may_name_another_model() -> None:
    assert make_model(job={"model": "gpt-4o"}).openai_model == "gpt-4o"
    assert make_model().openai_model == "gpt-4o-mini"


def test_rows_of_different_params_share_no_request() -> None:
    rows = [*make_rows("a"), *make_rows("b", dimensions=3)]

    with pytest.raises(ValueError, match="same params"):
        make_model(Task.EMBEDDINGS).request(rows)


@pytest.mark.parametrize(
    ("task", "params", "expected"),
    [
        (Task.CHAT, {}, 1),
        (Task.COMPLETIONS, {}, 16),
        (Task.EMBEDDINGS, {}, 256),
        (Task.EMBEDDINGS, {"batch_size": 3}, 3),
        (Task.EMBEDDINGS, {"batch_size": 9999}, 2048),
    ],
)
def test_pack_sizes(task: Task, params: dict[str, Any], expected: int) -> None:
    assert make_model(task, **params).rows_per_request == expected


def test_a_request_carries_what_belongs_around_its_body() -> None:
    model = make_model(
        Task.EMBEDDINGS, extra_headers={"a": "b"}, extra_query={"q": 1}, timeout=5, max_retries=9
    )

    request = model.request(make_rows("one", "two"))

    assert request == Request(
        path="/embeddings",
        body={"encoding_format": "base64", "model": "gpt-4o-mini", "input": ["one", "two"]},
        rows=2,
        estimated_tokens=2,
        sizes=[1, 1],
        headers={"a": "b"},
        query={"q": "1"},
        timeout_s=5,
    )


def test_the_estimate_of_a_row_is_what_its_request_reserves() -> None:
    for model in (
        make_model(Task.CHAT, max_tokens=100),
        make_model(Task.CHAT, n=2, tools=[{"type": "function"}]),
        make_model(Task.COMPLETIONS),
        make_model(Task.EMBEDDINGS),
    ):
        rows = make_rows("some text to send")
        assert model.estimate_tokens(rows[0]) == model.request(rows).estimated_tokens > 0


def test_max_tokens_is_reserved_for_every_answer() -> None:
    def reserved(**params: Any) -> int:
        return make_model(**params).estimate_tokens(make_rows("x")[0])

    assert reserved(max_tokens=1000) - reserved(max_tokens=1) == 999
    assert reserved(max_completion_tokens=500, n=2) - reserved(max_tokens=1) == 999


@pytest.mark.parametrize("bad", [None, float("nan")])
@pytest.mark.parametrize("task", [Task.CHAT, Task.COMPLETIONS, Task.EMBEDDINGS])
def test_a_row_that_cannot_be_rendered_raises_alike_in_both(task: Task, bad: Any) -> None:
    model = make_model(task)

    with pytest.raises(RowError):
        model.request(make_rows("good", bad) if task is not Task.CHAT else make_rows(bad))
    with pytest.raises(RowError):
        model.estimate_tokens(make_rows(bad)[0])


def test_a_value_that_does_not_fit_its_format_is_the_rows_fault() -> None:
    model = make_model(Task.COMPLETIONS, "{text:.2f}")

    assert model.request(make_rows(1)).body["prompt"] == ["1.00"]
    with pytest.raises(RowError, match="does not fit"):
        model.request(make_rows("one"))
    with pytest.raises(RowError, match="does not fit"):
        model.estimate_tokens(make_rows(10**400)[0])


def test_an_empty_text_has_no_embedding() -> None:
    with pytest.raises(RowError, match="empty"):
        make_model(Task.EMBEDDINGS).request(make_rows(""))


@pytest.mark.parametrize(
    "history", ["no json", "[]", [], {"role": "user"}, [{"content": "x"}], ["x"], 3]
)
def test_a_history_that_is_none_is_the_rows_fault(history: Any) -> None:
    row = Row(row_id="r", index=0, values={"messages": history})

    with pytest.raises(RowError, match="'messages'"):
        make_model().request([row])


def test_a_null_history_leaves_the_text() -> None:
    row = Row(row_id="r", index=0, values={"messages": None, "content": "hi"})

    assert make_model().request([row]).body["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("message", "output"),
    [
        ({"content": "yes"}, "yes"),
        ({"content": ""}, ""),
        ({"content": None, "refusal": "I will not."}, "I will not."),
        ({"content": None, "tool_calls": [{"id": "ä"}]}, '[{"id": "ä"}]'),
        ({"content": None, "function_call": {"name": "f"}}, '{"name": "f"}'),
        ({"content": [{"type": "text", "text": "x"}]}, '[{"type": "text", "text": "x"}]'),
        ({"content": None}, None),
    ],
)
def test_a_chat_answer_is_its_text_refusal_or_calls(message: Any, output: str | None) -> None:
    [reply] = replies(make_model(), make_rows("x"), chat(message))

    assert reply == Reply(
        output=output,
        finish_reason="stop",
        response_model="m-1",
        usage=Usage(
            prompt_tokens=30,
            completion_tokens=7,
            total_tokens=37,
            cached_tokens=16,
            reasoning_tokens=4,
        ),
    )


def test_a_filtered_answer_is_a_dead_row_with_its_usage() -> None:
    [error] = replies(make_model(), make_rows("x"), chat({"content": None}, "content_filter"))

    assert isinstance(error, RowError)
    assert error.info.code == "content_filter"
    assert error.usage is not None
    assert error.usage.total_tokens == 37


def test_one_filtered_completion_does_not_kill_its_pack() -> None:
    choices = [
        {"index": 1, "text": "", "finish_reason": "content_filter"},
        {"index": 0, "text": "fine", "finish_reason": "stop"},
    ]

    first, second = replies(
        make_model(Task.COMPLETIONS), make_rows("a", "b"), {"choices": choices, "usage": USAGE}
    )

    assert isinstance(first, Reply)
    assert first.output == "fine"
    assert isinstance(second, RowError)
    assert first.usage is not None
    assert second.usage is not None
    assert first.usage.total_tokens + second.usage.total_tokens == 37


def test_several_answers_to_a_prompt_are_one_row() -> None:
    choices = [{"index": i, "text": f"t{i}", "finish_reason": "stop"} for i in range(4)]
    model = make_model(Task.COMPLETIONS, n=2)

    answers = replies(model, make_rows("a", "b"), {"choices": choices})

    assert [reply.output for reply in answers if isinstance(reply, Reply)] == ["t0", "t2"]
    assert [reply.usage for reply in answers] == [None, None]


def test_a_name_or_a_count_that_is_none_is_unknown() -> None:
    payload = chat({"content": "yes"}) | {"model": 5, "usage": {"prompt_tokens": 2**63}}
    payload["choices"][0]["finish_reason"] = {}

    assert replies(make_model(), make_rows("x"), payload) == [Reply(output="yes")]


def test_a_completion_that_is_no_text_is_json() -> None:
    choices = [
        {"index": 0, "text": {"ä": 1}, "finish_reason": 1},
        {"index": 1, "text": None, "finish_reason": "stop"},
    ]

    answers = replies(
        make_model(Task.COMPLETIONS), make_rows("a", "b"), {"choices": choices, "model": []}
    )

    assert answers == [Reply(output='{"ä": 1}'), Reply(output=None, finish_reason="stop")]


@pytest.mark.parametrize("form", ["base64", "float"])
def test_embeddings_come_in_row_order_as_float32(form: str) -> None:
    vectors = [[0.5, 1.25], [2.0, -3.0]]
    encoded: list[Any] = [
        base64.b64encode(struct.pack("<2f", *vector)).decode() if form == "base64" else vector
        for vector in vectors
    ]
    data = [{"index": i, "embedding": encoded[i]} for i in (1, 0)]

    answers = replies(
        make_model(Task.EMBEDDINGS),
        make_rows("a", "b"),
        {"data": data, "usage": {"prompt_tokens": 9, "total_tokens": 9}},
    )

    assert [r.output for r in answers if isinstance(r, Reply)] == [
        struct.pack("<2f", *vector) for vector in vectors
    ]
    assert [r.usage.total_tokens for r in answers if r.usage] == [5, 4]


@pytest.mark.parametrize(
    ("task", "payload"),
    [
        (Task.CHAT, None),
        (Task.CHAT, []),
        (Task.CHAT, {}),
        (Task.CHAT, {"choices": []}),
        (Task.CHAT, {"choices": [{"message": None}]}),
        (Task.CHAT, {"error": {"message": "overloaded"}}),
        (Task.COMPLETIONS, {"choices": [{"index": 0, "text": "only one of two"}]}),
        (Task.COMPLETIONS, {"choices": [{"index": 0, "text": "x"}, {"index": None, "text": "y"}]}),
        (Task.EMBEDDINGS, {"data": [{"index": 0, "embedding": [1.0]}]}),
        (Task.EMBEDDINGS, {"data": [{"index": 0, "embedding": []}, {"index": 1}]}),
        (Task.EMBEDDINGS, {"data": [{"index": i, "embedding": "AAA"} for i in range(2)]}),
        (Task.EMBEDDINGS, {"data": [{"index": i, "embedding": "!!!!"} for i in range(2)]}),
        (Task.EMBEDDINGS, {"data": [{"index": i, "embedding": ["x"]} for i in range(2)]}),
        (Task.EMBEDDINGS, {"data": [{"index": i, "embedding": [10**400]} for i in range(2)]}),
        (Task.EMBEDDINGS, {"data": [{"index": 1, "embedding": [1.0]}] * 2}),
    ],
)
def test_a_malformed_payload_is_passing(task: Task, payload: Any) -> None:
    rows = make_rows("a") if task is Task.CHAT else make_rows("a", "b")

    with pytest.raises(TransientError) as caught:
        replies(make_model(task), rows, payload)

    assert caught.value.info.type == "MalformedResponse"


def test_a_malformed_payload_does_not_show_its_text() -> None:
    payload = {"choices": [{"text": "private words"}]}

    with pytest.raises(TransientError) as caught:
        replies(make_model(), make_rows("x"), payload)

    assert "private" not in json.dumps(str(caught.value))
