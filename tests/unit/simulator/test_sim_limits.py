"""The arithmetic of the limits, on an injected clock."""

from typing import Any

import pytest

from producer.simulator.limits import Admission, Allowance, Limits, duration, make_limit
from producer.simulator.settings import SimulatorSettings


class Gate:
    """Admits requests at times that the test names."""

    def __init__(self, **options: Any) -> None:
        self.settings = SimulatorSettings.model_validate(options)
        self.limits = Limits()

    def ask(self, *, at_s: float, tokens: int = 1, key: str = "sk-test") -> Admission:
        account = (key, "gpt-4o-mini")
        return self.limits.admit(account, tokens=tokens, settings=self.settings, now_s=at_s)

    def admitted(self, *, every_s: float, count: int, start_s: float = 0.0, tokens: int = 1) -> int:
        return sum(
            self.ask(at_s=start_s + n * every_s, tokens=tokens).is_admitted for n in range(count)
        )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.006, "6ms"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (1, "1s"),
        (8.64, "8.64s"),
        (59.999, "59.999s"),
        (60, "1m0s"),
        (86.4, "1m26.4s"),
        (90, "1m30s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (3725.5, "1h2m5.5s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_burst_is_one_second_of_the_limit() -> None:
    """6000 a minute are 100 a second: the 101st in one moment is refused."""
    gate = Gate(rpm=6000)

    assert gate.admitted(every_s=0, count=150) == 100


def test_a_burst_can_be_a_whole_minute() -> None:
    gate = Gate(rpm=6000, burst_s=60)

    assert gate.admitted(every_s=0, count=7000) == 6000


def test_the_allowance_is_refilled_continuously() -> None:
    gate = Gate(rpm=6000)
    gate.admitted(every_s=0, count=100)

    assert gate.ask(at_s=0.0101).is_admitted
    assert not gate.ask(at_s=0.0102).is_admitted


def test_whoever_keeps_to_the_limit_is_never_refused() -> None:
    gate = Gate(rpm=6000)

    assert gate.admitted(every_s=0.01, count=6000) == 6000


def test_a_minute_admits_no_more_than_its_limit_and_one_burst() -> None:
    gate = Gate(rpm=6000, counts_refused=False)

    assert gate.admitted(every_s=0.001, count=60_000) in range(6095, 6101)


def test_refused_requests_use_up_the_limit() -> None:
    """Who resends every millisecond after the burst gets nothing through, as OpenAI says."""
    gate = Gate(rpm=6000)

    assert gate.admitted(every_s=0.001, count=10_000) in range(100, 115)
    assert gate.ask(at_s=10.02).is_admitted, "a pause as long as one request's refill heals it"


def test_tokens_are_debited_too_and_both_or_neither() -> None:
    gate = Gate(rpm=6000, tpm=60_000)
    assert gate.ask(at_s=0, tokens=900).is_admitted

    refused = gate.ask(at_s=0, tokens=200)

    assert (refused.is_admitted, refused.short_of) == (False, "tokens")
    assert refused.wait_s == pytest.approx(0.1)
    assert gate.ask(at_s=0, tokens=100).is_admitted


def test_the_wait_that_is_named_is_the_one_that_helps() -> None:
    gate = Gate(tpm=60_000)
    gate.ask(at_s=0, tokens=1000)
    wait_s = gate.ask(at_s=0, tokens=300).wait_s

    assert not gate.ask(at_s=wait_s - 0.001, tokens=300).is_admitted
    assert gate.ask(at_s=wait_s, tokens=300).is_admitted


def test_more_than_a_burst_passes_when_full_and_is_paid_off() -> None:
    """A pack of 50,000 tokens does not fit a burst of 1,000, but it does fit the minute."""
    gate = Gate(tpm=60_000)
    assert gate.ask(at_s=0, tokens=50_000).is_admitted

    assert gate.ask(at_s=1, tokens=1).wait_s == pytest.approx(48.001)
    assert gate.ask(at_s=50, tokens=50_000).is_admitted


def test_more_than_a_minute_never_passes() -> None:
    refused = Gate(tpm=60_000).ask(at_s=0, tokens=60_001)

    assert (refused.is_admitted, refused.is_too_large, refused.short_of) == (False, True, "tokens")


def test_fewer_than_one_request_a_burst_still_pass_at_their_rate() -> None:
    gate = Gate(rpm=30)

    assert gate.admitted(every_s=2, count=10) == 10
    assert not gate.ask(at_s=18.5).is_admitted


def test_limits_are_per_key() -> None:
    gate = Gate(rpm=60)

    assert gate.ask(at_s=0, key="sk-one").is_admitted
    assert gate.ask(at_s=0, key="sk-two").is_admitted
    assert not gate.ask(at_s=0, key="sk-two").is_admitted


def test_a_change_of_the_limit_holds_at_once() -> None:
    gate = Gate(rpm=6000)
    gate.settings = gate.settings.changed({"rpm": 600})

    assert gate.admitted(every_s=0, count=100) == 10

    gate.settings = gate.settings.changed({"rpm": 12_000})
    assert gate.admitted(every_s=0, count=300, start_s=1.0) == 200


def test_a_limit_that_comes_and_goes_starts_full() -> None:
    gate = Gate(rpm=60)
    gate.ask(at_s=0)
    gate.settings = gate.settings.changed({"rpm": None})
    assert gate.ask(at_s=0).headers == ""

    gate.settings = gate.settings.changed({"rpm": None, "tpm": 600})
    assert gate.ask(at_s=0, tokens=10).is_admitted


def test_headers_speak_of_the_minute() -> None:
    admitted = Gate(rpm=6000, tpm=600_000).ask(at_s=0, tokens=100)

    assert admitted.headers.splitlines() == [
        "x-ratelimit-limit-requests: 6000",
        "x-ratelimit-remaining-requests: 5999",
        "x-ratelimit-reset-requests: 10ms",
        "x-ratelimit-limit-tokens: 600000",
        "x-ratelimit-remaining-tokens: 599900",
        "x-ratelimit-reset-tokens: 10ms",
    ]


def test_headers_can_be_left_out() -> None:
    assert Gate(rpm=6000, limit_headers=False).ask(at_s=0).headers == ""


def test_a_clock_that_goes_back_refills_nothing() -> None:
    allowance = Allowance(left=0.0, at_s=10.0)

    allowance.refill(make_limit(6000, burst_s=1.0), now_s=5.0)

    assert allowance.left == 0.0
