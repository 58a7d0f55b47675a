"""The interval of a pilot holds what the whole file then takes, about as often as it says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from producer.interval import Interval, Known, interval_of_total

ROWS = 5000


@pytest.fixture
def population() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Texts of very different lengths: what was counted, and what the API will bill."""
    rng = np.random.default_rng(7)
    counted = np.rint(rng.lognormal(4, 1, ROWS)) + 1.0
    billed = (
        np.rint(counted * rng.normal(1.1, 0.08, ROWS)) + 8.0 + rng.poisson(20, ROWS).astype(float)
    )
    return counted, billed


def _interval(
    counted: npt.NDArray[np.float64], billed: npt.NDArray[np.float64], drawn: npt.NDArray[np.int64]
) -> Interval:
    known = Known(of_sample=counted[drawn].tolist(), total=float(counted.sum()))
    found = interval_of_total(billed[drawn].tolist(), rows=len(billed), known=known)
    assert found is not None
    return found


@pytest.mark.parametrize("size", [20, 100])
def test_it_holds_the_truth_in_about_95_of_100_cases(
    population: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], size: int
) -> None:
    """500 pilots: one standard deviation of what 95 % gives is 5; skew costs a little."""
    counted, billed = population
    rng = np.random.default_rng(3)
    held = 0

    for _ in range(500):
        found = _interval(counted, billed, rng.choice(ROWS, size, replace=False))
        held += found.low <= billed.sum() <= found.high

    assert 450 <= held <= 495


def test_what_was_counted_beforehand_makes_it_narrower(
    population: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
) -> None:
    counted, billed = population
    drawn = np.random.default_rng(3).choice(ROWS, 100, replace=False)

    with_counts = _interval(counted, billed, drawn)
    without = _interval(np.ones(ROWS), billed, drawn)

    assert without.high - without.low > 4 * (with_counts.high - with_counts.low)


def test_a_pilot_of_all_rows_is_the_sum() -> None:
    values = [float(value) for value in range(30)]
    known = Known(of_sample=values, total=sum(values))

    found = interval_of_total(values, rows=30, known=known)

    assert found is not None
    assert (found.low, found.estimate, found.high) == pytest.approx((435, 435, 435))


def test_few_rows_are_not_fitted_to_a_line() -> None:
    """Student's t with one degree of freedom is 12.7; and no less than what was used is used."""
    known = Known(of_sample=[1, 1000], total=10_000)

    found = interval_of_total([10, 20], rows=100, known=known)

    assert found is not None
    assert found.estimate == 1500
    assert found.low == 30
    assert found.high == pytest.approx(1500 + 100 * 12.706 * (50 * 0.98) ** 0.5, rel=1e-3)


def test_one_row_tells_nothing() -> None:
    assert interval_of_total([10], rows=100, known=Known(of_sample=[1], total=100)) is None
