"""A random sample of a stream whose length nobody knows: every item with the same chance."""

from __future__ import annotations

import math
import random
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Sample(Generic[_T]):
    """``size`` items out of all that were offered, drawn without replacement; all where fewer came.

    Memory holds the sample; all but a few items cost one comparison. Source: K.-H. Li, "Reservoir-
    sampling algorithms of time complexity O(n(1 + log(N/n)))", 1994, algorithm L.
    """

    def __init__(self, size: int, random_: random.Random) -> None:
        self.items: list[_T] = []
        self.offered = 0
        self._size = size
        self._random = random_
        self._weight = 1.0
        self._next = size  # the place of the next item that is taken

    def offer(self, item: _T) -> None:
        """Take the item, or leave it."""
        place = self.offered
        self.offered += 1
        if place < self._size:
            self.items.append(item)
            if place == self._size - 1:
                self._skip()
        elif place == self._next:
            self.items[self._random.randrange(self._size)] = item
            self._skip()

    def _skip(self) -> None:
        self._weight *= math.exp(math.log(self._uniform()) / self._size)
        left = math.log(self._uniform()) / math.log1p(-self._weight)
        self._next = max(self._next, self.offered) + math.floor(left)

    def _uniform(self) -> float:
        return 1.0 - self._random.random()  # above 0: its logarithm is asked for
