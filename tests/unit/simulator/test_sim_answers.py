"""What the simulated model says, and how requests shape it."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

SENTIMENT = "Classify the sentiment as positive, negative or neutral: {}"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love it, the sound is great!", "positive"),
        ("it broke after a day. terrible.", "negative"),
        ("not good.", "negative"),
        ("it is not bad", "positive"),
        ("repost from january 13, 2004", "neutral"),
        ("ça marche très bien, \u0645\u0631\u062d\u0628\u0627", "neutral"),
    ],
)
def test_sentiment_follows_the_words(desk: Any, text: str, label: str) -> None:
    assert desk.chat(SENTIMENT.format(text)).text == label


def test_a_maths_problem_gets_a_number(desk: Any) -> None:
    answer = desk.chat("A robe takes 2 bolts and half that much. How many?").text

    assert answer.startswith("#### ")
    assert answer.removeprefix("#### ").isdigit()


def test_anything_else_gets_its_first_words_back_labelled(desk: Any) -> None:
    answer = desk.chat(" ".join(f"w{n}" for n in range(20))).text

    assert answer == "[simulated] w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11"


def test_the_same_question_gets_the_same_answer_in_any_order(make_desk: Callable[..., Any]) -> None:
    questions = [f"How many are {n} and 1?" for n in range(50)]
    one, other = make_desk(seed=7), make_desk(seed=7)

    forth = {text: one.chat(text).text for text in questions}
    back = {text: other.chat(text).text for text in reversed(questions)}

    assert forth == back
    assert len(set(forth.values())) > 10


def test_another_seed_answers_otherwise(make_desk: Callable[..., Any]) -> None:
    questions = [f"How many are {n} and 1?" for n in range(20)]
    one, other = make_desk(seed=1), make_desk(seed=2)

    assert [one.chat(q).text for q in questions] != [other.chat(q).text for q in questions]


def test_every_answer_says_that_it_is_simulated(desk: Any) -> None:
    body = desk.chat("hello").body

    assert body["system_fingerprint"] == "simulated"
    assert body["id"].startswith("chatcmpl-sim-")


def test_usage_follows_the_length_of_the_text(desk: Any) -> None:
    """Four characters a token, three for the message and three for the reply."""
    usage = desk.chat("x" * 400).body["usage"]

    assert usage["prompt_tokens"] == 106
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0


def test_cached_tokens_are_a_share_of_the_prompt(make_desk: Callable[..., Any]) -> None:
    usage = make_desk(cached_share=0.5).chat("x" * 400).body["usage"]

    assert usage["prompt_tokens_details"]["cached_tokens"] == 53


@pytest.mark.parametrize("openai_model", ["o1-mini", "o3", "o4-mini", "gpt-5-nano"])
def test_reasoning_models_bill_their_thoughts(desk: Any, openai_model: str) -> None:
    usage = desk.chat("hello", model=openai_model).body["usage"]

    thought = usage["completion_tokens_details"]["reasoning_tokens"]
    assert thought >= 64
    assert usage["completion_tokens"] == thought + 5


def test_thinking_can_use_up_the_whole_limit(desk: Any) -> None:
    body = desk.chat("hello", model="o3", max_completion_tokens=10).body

    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["content"] == ""
    assert body["usage"]["completion_tokens"] == 10


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_cut_at_its_token_limit(desk: Any, name: str) -> None:
    body = desk.chat("one two three four", **{name: 3}).body

    assert body["choices"][0]["message"]["content"] == "[simulated] "
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("stop", [" three", [" four", " three"]])
def test_an_answer_ends_before_its_stop(desk: Any, stop: object) -> None:
    body = desk.chat("one two three four", stop=stop).body

    assert body["choices"][0]["message"]["content"] == "[simulated] one two"
    assert body["choices"][0]["finish_reason"] == "stop"


def test_n_choices_are_indexed_and_billed(desk: Any) -> None:
    body = desk.chat("How many are 2 and 2?", n=3).body

    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in body["choices"]}) > 1
    assert body["usage"]["completion_tokens"] >= 6


def test_json_mode_gives_an_object(desk: Any) -> None:
    text = desk.chat("say it in JSON", response_format={"type": "json_object"}).text

    assert orjson.loads(text) == {"simulated": True, "answer": "[simulated] say it in JSON"}


def test_a_required_tool_is_called_with_conforming_arguments(desk: Any) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [
        {"type": "function", "function": {"name": "other"}},
        {"type": "function", "function": {"name": "weather", "parameters": parameters}},
    ]
    named = {"type": "function", "function": {"name": "weather"}}

    choice = desk.chat("Paris", tools=tools, tool_choice=named).body["choices"][0]
    first = desk.chat("Paris", tools=tools, tool_choice="required").body["choices"][0]
    none = desk.chat("Paris", tools=tools).body["choices"][0]

    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    function = choice["message"]["tool_calls"][0]["function"]
    assert function["name"] == "weather"
    assert orjson.loads(function["arguments"]) == {"city": "[simulated] Paris"}
    assert first["message"]["tool_calls"][0]["function"]["name"] == "other"
    assert none["finish_reason"] == "stop"


def test_triggers_give_odd_answers(desk: Any) -> None:
    refused = desk.chat("[[refuse]]").body["choices"][0]["message"]

    assert (refused["content"], refused["refusal"][:11]) == (None, "[simulated]")
    assert desk.chat("[[empty]]").text == ""
    assert len(desk.chat("[[huge]]").text) > 1_000_000


def test_completions_answer_each_of_several_prompts(desk: Any) -> None:
    body = {"model": "gpt-3.5-turbo-instruct", "prompt": ["one", "two"], "n": 2}
    reply = desk.ask("/v1/completions", body).body

    texts = [choice["text"] for choice in reply["choices"]]
    assert texts == ["[simulated] one"] * 2 + ["[simulated] two"] * 2
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    assert reply["object"] == "text_completion"
    assert reply["usage"] == {"prompt_tokens": 2, "completion_tokens": 16, "total_tokens": 18}


def test_completions_are_cut_at_16_tokens_by_default(desk: Any) -> None:
    body = {"model": "m", "prompt": "abcdefgh " * 20}
    choice = desk.ask("/v1/completions", body).body["choices"][0]

    assert (len(choice["text"]), choice["finish_reason"]) == (64, "length")


def test_parts_of_a_message_are_read(desk: Any) -> None:
    parts = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    messages = [
        {"role": "system", "content": "be brief", "name": "me"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": parts},
    ]
    body = desk.ask("/v1/chat/completions", {"model": "m", "messages": messages}).body

    assert body["choices"][0]["message"]["content"].startswith("[simulated] be brief what is this")
    assert body["usage"]["prompt_tokens"] == 3 + (3 + 1 + 2) + 3 + (3 + 3 + 85)
