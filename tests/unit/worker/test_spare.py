"""Turns held beforehand: how many, for whom, and when they are nobody's any more."""

from __future__ import annotations

from worker.spare import VALID_S, Spare, Wanted


def test_twice_what_went_since_the_last_call_is_to_be_held() -> None:
    spare = Spare()

    assert spare.wanted([10, 30], now_s=1.0) == Wanted(requests=4, tokens_each=20, unused=0)

    spare.add(4, 20, now_s=1.0)
    assert spare.take(50, now_s=1.0)
    assert spare.take(30, now_s=1.0)
    assert not spare.take(1, now_s=1.0)  # requests are left, and no tokens for them
    assert spare.wanted([], now_s=1.001) == Wanted(requests=2, tokens_each=80, unused=0)


def test_what_no_row_has_used_is_given_back_as_time_passes() -> None:
    spare = Spare()
    spare.wanted([5] * 50, now_s=1.0)
    spare.add(100, 5, now_s=1.0)

    assert spare.wanted([], now_s=1.2) == Wanted(requests=-75, tokens_each=0, unused=375)
    assert spare.wanted([], now_s=9.0) == Wanted(requests=-25, tokens_each=0, unused=125)
    assert (spare.requests, spare.tokens) == (0, 0)


def test_a_row_takes_no_turn_that_may_have_been_voided_by_a_pause_of_others() -> None:
    spare = Spare()
    spare.add(2, 10, now_s=1.0)

    assert spare.take(10, now_s=1.0 + VALID_S)
    assert not spare.take(10, now_s=1.01 + VALID_S)
    spare.add(0, 0, now_s=1.6)  # a call told of no pause
    assert spare.take(10, now_s=1.6)


def test_nothing_is_held_after_a_pause() -> None:
    spare = Spare()
    spare.add(8, 10, now_s=1.0)
    spare.void()

    assert not spare.take(0, now_s=1.0)
