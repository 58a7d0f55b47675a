"""Totals are the sums of the outcomes, to the last token and the last pico-dollar."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from flavor.types import Task, Usage
from tests.unit.worker.making import make_dead, make_outcome
from worker.jobs import Outcome, Verdict
from worker.parts import read_part, write_part
from worker.totals import Totals


def _sum(folder: Path, *parts: list[Outcome]) -> Totals:
    totals = Totals()
    for number, outcomes in enumerate(parts):
        path = folder / str(number)
        write_part(path, outcomes, Task.CHAT)
        totals.add(read_part(path))
    return totals


def _random_outcome(chance: random.Random, index: int) -> Outcome:
    if chance.random() < 0.1:
        return make_dead(index, chance.choice([Verdict.REJECTED, Verdict.EXHAUSTED]))
    prompt, completion = chance.randrange(10**6), chance.randrange(10**4)
    usage = Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        cached_tokens=prompt // 3,
        reasoning_tokens=completion // 2,
    )
    cost_usd = chance.randrange(10**10) / 1e12
    return make_outcome(
        index, usage=usage, cost_usd=cost_usd, attempts=chance.randrange(1, 7), latency_s=1.0
    )


def test_totals_are_the_sums_of_the_outcomes(tmp_path: Path) -> None:
    chance = random.Random(3)
    outcomes = [_random_outcome(chance, index) for index in range(500)]

    totals = _sum(tmp_path, outcomes[:200], outcomes[200:201], [], outcomes[201:])

    used = [outcome.usage for outcome in outcomes if outcome.usage]
    assert totals.rows == {v: sum(o.verdict is v for o in outcomes) for v in Verdict}
    assert totals.rows_total == 500
    for name, total in totals.tokens.items():
        assert total == sum(getattr(usage, f"{name}_tokens") for usage in used)
    assert totals.attempts == sum(outcome.attempts for outcome in outcomes)
    pico = sum(round(o.cost_usd * 1e12) for o in outcomes if o.cost_usd is not None)
    assert totals.cost_pico == pico
    assert totals.cost_usd == pico / 1e12


def test_outcomes_at_hand_add_up_to_the_same_counts(tmp_path: Path) -> None:
    chance = random.Random(4)
    outcomes = [_random_outcome(chance, index) for index in range(100)]
    direct = Totals()

    direct.add_outcomes(outcomes)

    assert direct.counts() == _sum(tmp_path, outcomes).counts()


def test_the_order_of_parts_changes_nothing(tmp_path: Path) -> None:
    chance = random.Random(5)
    parts = [[_random_outcome(chance, n * 50 + i) for i in range(50)] for n in range(4)]

    forwards, backwards = _sum(tmp_path, *parts), _sum(tmp_path, *reversed(parts))

    assert forwards.metrics() == backwards.metrics()


def test_an_unknown_cost_stays_unknown(tmp_path: Path) -> None:
    totals = _sum(tmp_path, [make_outcome(0), make_dead(1)])

    assert totals.cost_usd is None
    assert "cost.usd" not in totals.metrics()


def test_a_known_cost_of_nothing_is_zero(tmp_path: Path) -> None:
    totals = _sum(tmp_path, [make_outcome(0, cost_usd=0.0)])

    assert totals.cost_usd == 0
    assert totals.metrics()["cost.usd"] == 0


def test_unknown_usage_makes_no_token_metrics(tmp_path: Path) -> None:
    """A pyfunc's rows: zero tokens would be a lie."""
    totals = _sum(tmp_path, [make_outcome(0, usage=None)])

    assert not [name for name in totals.metrics() if name.startswith("tokens.")]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("spread", [0.2, 2.0])
def test_percentiles_are_right_to_one_percent(tmp_path: Path, share: float, spread: float) -> None:
    chance = random.Random(6)
    seconds = [chance.lognormvariate(0, spread) for _ in range(2000)]

    totals = _sum(tmp_path, [make_outcome(n, latency_s=s) for n, s in enumerate(seconds)])

    exact = float(np.quantile(seconds, share, method="inverted_cdf"))
    assert totals.latency_s(share) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("latency_s", [0.0, 1e-9, 1e9])
def test_absurd_latencies_break_nothing(tmp_path: Path, latency_s: float) -> None:
    totals = _sum(tmp_path, [make_outcome(0, latency_s=latency_s)])

    assert totals.latency_s(0.5) is not None


def test_without_latencies_there_are_no_percentiles(tmp_path: Path) -> None:
    totals = _sum(tmp_path, [make_outcome(0)])

    assert totals.latency_s(0.5) is None
    assert not [name for name in totals.metrics() if name.startswith("latency.")]


def test_metrics_bear_the_names_of_the_design(tmp_path: Path) -> None:
    totals = _sum(tmp_path, [make_outcome(0, cost_usd=0.5, latency_s=1.0), make_dead(1)])

    assert set(totals.metrics()) == {
        *(f"rows.{name}" for name in ("succeeded", "rejected", "exhausted", "cancelled")),
        *(f"tokens.{name}" for name in ("prompt", "completion", "total", "cached", "reasoning")),
        "cost.usd",
        *(f"latency.{name}_s" for name in ("p50", "p95", "p99")),
    }
