"""Keys, models, bodies, limits, counts and changes in mid-run, without a socket."""

from collections.abc import Callable
from typing import Any

import pytest

from producer.simulator import prompt_hash

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hello"}]


def test_no_key_and_bad_keys_are_refused(make_desk: Callable[..., Any]) -> None:
    desk = make_desk(keys="sk-good,sk-better")

    none = desk.chat("a", key=None)
    assert (none.status, none.error["code"]) == (401, None)
    for key in ("invalid", "sk-other"):
        bad = desk.chat("a", key=key)
        assert (bad.status, bad.error["code"]) == (401, "invalid_api_key")
    assert desk.chat("a", key="sk-better").status == 200
    assert desk.get("/v1/models", key="invalid").status == 401


def test_a_refused_key_is_echoed_as_openai_echoes_it(make_desk: Callable[..., Any]) -> None:
    message = make_desk(keys="sk-good").chat("a", key="sk-proj-abcdefgh1234").error["message"]

    assert "sk-proj-********1234." in message


def test_unknown_models_are_refused(make_desk: Callable[..., Any]) -> None:
    desk = make_desk(models="gpt-4o-mini")

    assert make_desk().chat("a", model="any").status == 200
    assert make_desk().chat("a", model="unknown-model").error["code"] == "model_not_found"
    assert desk.chat("a", model="gpt-4o").status == 404
    assert [card["id"] for card in desk.get("/v1/models").body["data"]] == ["gpt-4o-mini"]
    assert desk.get("/v1/models/gpt-4o-mini").body["id"] == "gpt-4o-mini"
    assert desk.get("/v1/models/gpt-4o").status == 404


def test_azure_s_paths_name_the_model(desk: Any) -> None:
    path = "/openai/deployments/{}/chat/completions?api-version=2024-10-21"

    asked = desk.ask(path.format("my-gpt"), {"messages": MESSAGES})
    unknown = desk.ask(path.format("unknown-gpt"), {"messages": MESSAGES})
    without_version = desk.ask(path.format("my-gpt").partition("?")[0], {"messages": MESSAGES})

    assert asked.body["model"] == "my-gpt"
    assert (unknown.status, unknown.error["code"]) == (404, "DeploymentNotFound")
    assert without_version.status == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{broken", None),
        (b"[]", None),
        (b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}', None),
        ({"messages": MESSAGES}, None),
        ({"model": 1, "messages": MESSAGES}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": "hi"}, "messages"),
        ({"model": "m", "messages": ["hi"]}, "messages[0]"),
        ({"model": "m", "messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "user"}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": [1]}]}, "messages[0].content"),
        (
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content.text",
        ),
    ],
)
def test_what_is_no_chat_is_refused(desk: Any, body: object, param: str | None) -> None:
    asked = desk.ask(CHAT, body)

    assert (asked.status, asked.error["type"]) == (400, "invalid_request_error")
    assert asked.error["param"] == param


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 2.5),
        ("temperature", "0"),
        ("top_p", -0.1),
        ("n", 0),
        ("n", True),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("stop", 7),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stream", True),
        ("response_format", {"type": "json_schema"}),
        ("response_format", "json"),
        ("tool_choice", "required"),
    ],
)
def test_parameters_out_of_range_are_refused(desk: Any, name: str, value: object) -> None:
    asked = desk.chat("hello", **{name: value})

    assert (asked.status, asked.error["param"]) == (400, name)


def test_parameters_in_range_pass(desk: Any) -> None:
    schema = {"name": "s", "schema": {"type": "object"}}
    for form in ({"type": "text"}, {"type": "json_schema", "json_schema": schema}):
        assert desk.chat("hello", response_format=form, temperature=0, user="x").status == 200


def test_a_prompt_longer_than_the_context_is_refused(make_desk: Callable[..., Any]) -> None:
    asked = make_desk(context_tokens=100).chat("x" * 400)

    assert (asked.status, asked.error["code"]) == (400, "context_length_exceeded")


def test_completions_want_a_prompt(desk: Any) -> None:
    assert desk.ask("/v1/completions", {"model": "m"}).error["param"] == "prompt"
    assert desk.ask("/v1/completions", {"model": "m", "prompt": ["a", 1]}).status == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", CHAT, 405),
        ("POST", "/stats", 405),
        ("GET", "/stats/reset", 405),
        ("DELETE", "/config", 405),
    ],
)
def test_other_paths_and_methods_are_refused(
    desk: Any, method: str, path: str, status: int
) -> None:
    assert desk.ask(path, method=method).status == status
    assert desk.stats()["requests"] == 0


def test_the_quota_ends(make_desk: Callable[..., Any]) -> None:
    desk = make_desk(quota_tokens=20)
    assert desk.chat("x" * 60).status == 200

    ended = desk.chat("x")

    assert (ended.status, ended.error["code"]) == (429, "insufficient_quota")
    assert desk.chat("x", key="sk-other").status == 200
    desk.ask("/config", {"quota_tokens": None})
    assert desk.chat("x").status == 200


def test_a_429_says_what_it_lacks_and_for_how_long(make_desk: Callable[..., Any]) -> None:
    desk = make_desk(rpm=30, burst_s=2)
    desk.chat("a")

    refused = desk.chat("a")

    assert (refused.status, refused.error["type"]) == (429, "requests")
    assert refused.error["code"] == "rate_limit_exceeded"
    assert (refused.headers["retry-after"], refused.headers["retry-after-ms"]) == ("2", "2000")
    assert refused.headers["x-ratelimit-limit-requests"] == "30"


def test_tokens_needed_are_the_prompt_and_max_tokens(make_desk: Callable[..., Any]) -> None:
    desk = make_desk(tpm=60_000)

    asked = desk.chat("x" * 376, max_tokens=400)
    too_large = desk.chat("x", max_tokens=60_000)

    assert asked.headers["x-ratelimit-remaining-tokens"] == "59500"
    assert (too_large.status, too_large.error["type"]) == (429, "tokens")
    assert "Request too large" in too_large.error["message"]


def test_the_limit_can_be_debited_the_answer_s_usage_instead(make_desk: Callable[..., Any]) -> None:
    asked = make_desk(tpm=60_000, charges_usage=True).chat("x" * 376, max_tokens=400)

    total = asked.body["usage"]["total_tokens"]
    assert asked.headers["x-ratelimit-remaining-tokens"] == str(60_000 - total)


def test_a_refused_body_costs_nothing_of_the_limit(make_desk: Callable[..., Any]) -> None:
    desk = make_desk(rpm=60)

    assert desk.ask(CHAT, b"{broken").status == 400
    assert desk.chat("a").status == 200


def test_faults_keep_the_limits_headers(make_desk: Callable[..., Any]) -> None:
    assert "x-ratelimit-limit-requests" in make_desk(rpm=600).chat("[[error]]").headers


def test_stats_count_everything(desk: Any, clock: Any) -> None:
    desk.chat("one")
    clock.s += 5
    desk.chat("two")
    desk.chat("two")
    desk.chat("[[error]]")
    desk.chat("[[throttle]]")

    stats = desk.stats()

    assert {name: stats[name] for name in ("requests", "accepted", "throttled", "errors")} == {
        "requests": 5,
        "accepted": 3,
        "throttled": 1,
        "errors": {"429": 1, "500": 1},
    }
    assert (stats["rows_accepted"], stats["rows_distinct"], stats["rows_paid_twice"]) == (3, 2, 1)
    assert stats["paid"] == {prompt_hash("one"): 1, prompt_hash("two"): 2}
    assert stats["accepted_per_s"] == [[1_000_000, 1], [1_000_005, 2]]
    assert stats["tokens"] == {"prompt": 21, "completion": 12, "total": 33}
    assert (stats["in_flight"], stats["max_in_flight"]) == (0, 1)


def test_each_row_of_a_pack_is_paid(desk: Any) -> None:
    desk.embed(["a", "b"])
    desk.embed(["b", "c"])

    stats = desk.stats()

    assert (stats["accepted"], stats["rows_accepted"], stats["rows_paid_twice"]) == (2, 4, 1)


def test_the_map_of_many_prompts_is_shown_on_demand(desk: Any) -> None:
    for start in range(0, 2000, 1000):
        desk.embed([f"text {start + n}" for n in range(1000)])

    assert desk.stats()["paid"] is None
    assert len(desk.stats("?prompts=1")["paid"]) == 2000


def test_texts_are_shown_on_demand_and_bounded(make_desk: Callable[..., Any]) -> None:
    desk = make_desk(keep_texts=2)
    for text in ("x" * 900, "two", "three"):
        desk.chat(text)

    texts = desk.stats("?texts=1")["texts"]

    assert texts == {prompt_hash("x" * 900): "x" * 500, prompt_hash("two"): "two"}
    assert "texts" not in desk.stats()


def test_old_seconds_are_forgotten(desk: Any, clock: Any) -> None:
    for _ in range(300):
        desk.chat("a")
        clock.s += 1

    assert len(desk.stats()["accepted_per_s"]) == 119
    assert len(desk.api.stats.accepted_per_s) <= 241


def test_reset_forgets_counts_and_how_often_prompts_were_seen(desk: Any) -> None:
    desk.chat("[[flaky]]")

    desk.ask("/stats/reset")

    assert desk.stats()["requests"] == 0
    assert [desk.chat("[[flaky]]").status for _ in range(3)] == [500, 500, 200]


def test_settings_can_be_changed_in_mid_run(desk: Any) -> None:
    changed = desk.ask("/config", {"rpm": 60, "error_rate": 1, "models": ["m"]})

    assert (changed.body["rpm"], changed.body["models"]) == (60, ["m"])
    assert desk.chat("a", model="m").status == 500
    assert desk.chat("a").status == 404


@pytest.mark.parametrize("change", [{"rmp": 60}, {"rpm": "many"}, {"error_rate": 2}, []])
def test_a_wrong_change_changes_nothing(desk: Any, change: object) -> None:
    before = desk.get("/config").body

    assert desk.ask("/config", change).status == 400
    assert desk.get("/config").body == before


def test_the_settings_shown_hold_no_keys(make_desk: Callable[..., Any]) -> None:
    assert b"sk-secret" not in make_desk(keys="sk-secret").get("/config").response.body


def test_the_access_log_names_no_text(make_desk: Callable[..., Any], caplog: Any) -> None:
    caplog.set_level("INFO")

    make_desk().chat("a private text")
    assert caplog.text == ""
    make_desk(access_log=True).chat("a private text")

    assert "POST /v1/chat/completions 200" in caplog.text
    assert "private" not in caplog.text
