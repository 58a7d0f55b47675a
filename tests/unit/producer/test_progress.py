"""A job's figures as people read them."""

from __future__ import annotations

import pytest

from producer.progress import money


@pytest.mark.parametrize(
    ("cost_usd", "shown"),
    [
        (None, "cost unknown"),
        (0, "$0"),
        (0.000028, "$0.000028"),
        (0.00000123, "$0.0000012"),
        (0.0001, "$0.0001"),
        (0.0234, "$0.0234"),
        (1234.5, "$1,234.50"),
    ],
)
def test_money_has_the_digits_that_matter(cost_usd: float | None, shown: str) -> None:
    assert money(cost_usd) == shown
