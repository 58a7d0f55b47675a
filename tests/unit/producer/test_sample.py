"""A sample is random: each item has the same chance, wherever it stands in the stream."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from producer.sample import Sample


def test_every_item_has_the_same_chance() -> None:
    """Of 20 items 5 are drawn 4,000 times: each 1,000 times, with a standard deviation of 27."""
    random_ = random.Random(1)
    drawn: Counter[int] = Counter()

    for _ in range(4000):
        sample: Sample[int] = Sample(5, random_)
        for item in range(20):
            sample.offer(item)
        assert len(set(sample.items)) == 5
        drawn.update(sample.items)

    assert len(drawn) == 20
    assert all(abs(count - 1000) < 5 * 27 for count in drawn.values()), drawn


@pytest.mark.parametrize("offered", [0, 1, 5])
def test_fewer_items_than_asked_for_are_all_taken(offered: int) -> None:
    sample: Sample[int] = Sample(5, random.Random(1))

    for item in range(offered):
        sample.offer(item)

    assert sample.items == list(range(offered))
    assert sample.offered == offered
