"""Faults: by rate and by trigger, the same for the same prompt in any order."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from producer.simulator.draws import prompt_key
from producer.simulator.latency import latency_s
from producer.simulator.protocol import Delivery
from producer.simulator.settings import SimulatorSettings

TEXTS = [f"row {n}" for n in range(2000)]


def test_a_prompt_s_faults_depend_on_nothing_but_how_often_it_was_asked(
    make_desk: Callable[..., Any],
) -> None:
    options = {"seed": 5, "error_rate": 0.2, "throttle_rate": 0.2}
    one, other = make_desk(**options), make_desk(**options)
    texts = TEXTS[:100]

    forth = [[one.chat(text).status for _ in range(3)] for text in texts]
    back: list[list[int]] = [[] for _ in texts]
    for _ in range(3):
        for index in reversed(range(len(texts))):
            back[index].append(other.chat(texts[index]).status)

    assert forth == back
    assert len({tuple(statuses) for statuses in forth}) > 5


def test_rates_are_shares_of_the_requests(make_desk: Callable[..., Any]) -> None:
    desk = make_desk(error_rate=0.02, throttle_rate=0.2, unavailable_rate=0.05)

    counts = Counter(desk.chat(text).status for text in TEXTS)

    assert counts[500] in range(20, 60)
    assert counts[429] in range(340, 460)
    assert counts[503] in range(70, 130)
    assert desk.stats()["faults"] == {
        "error": counts[500],
        "throttle": counts[429],
        "unavailable": counts[503],
    }


def test_rates_may_not_exceed_the_whole() -> None:
    with pytest.raises(ValidationError, match="together at most 1"):
        SimulatorSettings(error_rate=0.6, garbage_rate=0.5)


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("error", 500, None),
        ("unavailable", 503, None),
        ("throttle", 429, "rate_limit_exceeded"),
        ("reject", 400, "invalid_prompt"),
        ("filter", 400, "content_filter"),
    ],
)
def test_a_trigger_strikes_each_time(desk: Any, name: str, status: int, code: str | None) -> None:
    for _ in range(3):
        asked = desk.chat(f"please [[{name}]] now")
        assert (asked.status, asked.error["code"]) == (status, code)

    assert desk.stats()["rows_accepted"] == 0


def test_flaky_fails_twice_however_it_is_packed(desk: Any) -> None:
    statuses = [desk.chat("[[flaky]]").status for _ in range(4)]
    packed = [desk.embed(["x" * n, "[[flaky]] 2"]).status for n in range(1, 5)]

    assert statuses == [500, 500, 200, 200]
    assert packed == [500, 500, 200, 200]


def test_an_unknown_trigger_is_just_text(desk: Any) -> None:
    assert desk.chat("[[wiki link]]").status == 200


@pytest.mark.parametrize(
    ("name", "delivery", "is_paid"),
    [
        ("timeout", Delivery.HELD, False),
        ("reset", Delivery.RESET, True),
        ("truncate", Delivery.TRUNCATED, True),
        ("garbage", Delivery.WHOLE, True),
    ],
)
def test_faults_of_delivery(desk: Any, name: str, delivery: Delivery, is_paid: bool) -> None:
    asked = desk.chat(f"[[{name}]]")

    assert asked.response.delivery is delivery
    assert desk.stats()["rows_accepted"] == is_paid


def test_a_reset_can_come_before_the_row_is_paid(make_desk: Callable[..., Any]) -> None:
    desk = make_desk(reset_rate=1, reset_is_paid=False)

    assert desk.chat("a").response.delivery is Delivery.DROPPED
    assert desk.stats()["rows_accepted"] == 0


def test_flawed_answers(desk: Any) -> None:
    assert b"not JSON" in desk.chat("[[garbage]]").response.body
    assert "usage" not in desk.chat("[[no_usage]]").body
    assert "choices" not in desk.chat("[[no_choices]]").body
    assert "data" not in desk.embed("[[no_choices]]").body


def test_a_429_by_rate_names_the_wait_it_was_told(make_desk: Callable[..., Any]) -> None:
    headers = make_desk(throttle_rate=1, throttle_retry_after_s=2.5).chat("a").headers

    assert (headers["retry-after"], headers["retry-after-ms"]) == ("3", "2500")


def test_the_wait_can_be_a_date_or_left_out(make_desk: Callable[..., Any]) -> None:
    date = make_desk(throttle_rate=1, retry_after_date=True).chat("a").headers
    nothing = make_desk(throttle_rate=1, retry_after=False).chat("a").headers

    assert date["retry-after"] == "Mon, 12 Jan 1970 13:46:41 GMT"
    assert "retry-after-ms" not in date
    assert "retry-after" not in nothing


def wait_s(text: str, **options: Any) -> float:
    settings = SimulatorSettings.model_validate({"latency_s": 1.0, **options})
    return latency_s((text,), key=prompt_key(text), openai_model="m", settings=settings)


def test_latency_is_the_median_where_nothing_spreads_it() -> None:
    assert wait_s("a") == 1.0
    assert wait_s("a", latency_s=0) == 0.0
    assert wait_s("[[slow]]") == 10.0


def test_latency_spreads_around_its_median() -> None:
    waits = sorted(wait_s(text, latency_spread=0.5) for text in TEXTS)

    assert waits[1000] == pytest.approx(1.0, abs=0.1)
    assert waits[100] < 0.6
    assert waits[1900] > 1.6


def test_a_share_of_the_prompts_takes_much_longer() -> None:
    waits = [wait_s(text, tail_share=0.05, tail_factor=20) for text in TEXTS]

    assert Counter(waits)[20.0] in range(60, 140)
    assert waits == [wait_s(text, tail_share=0.05, tail_factor=20) for text in TEXTS]
