"""Turns that a process holds before any row asks for them, so that rows go without a call.

Only while no limit binds: where one does, each turn is some waiting row's. Plain bookkeeping; when
to ask is decided in ``worker.limiter``, and how many are to be had in ``lua/reserve.lua``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

VALID_S = 0.5
"""So long after a call what is held may be used: later, others may have met a pause."""

_HALF_LIFE_S = 0.1
_MOST = 512


class Wanted(NamedTuple):
    """What a call shall ask for beforehand: requests, and tokens for each.

    Less than no requests are given back, and so are the tokens of ``unused``.
    """

    requests: int
    tokens_each: int
    unused: int


@dataclass(slots=True)
class Spare:
    """Requests and tokens that are reserved and that no row has used. Times are the loop's."""

    requests: int = 0
    tokens: int = 0
    _told_s: float = float("-inf")
    _asked_s: float = float("-inf")
    _target: float = 0.0  # so many turns to hold
    _average: float = 0.0  # tokens of a turn
    _taken: int = 0  # turns since the last call, and their tokens
    _taken_tokens: int = 0

    @property
    def is_used(self) -> bool:
        """Whether turns were taken since the last call."""
        return self._taken > 0

    def take(self, tokens: int, *, now_s: float) -> bool:
        """Let a row of so many tokens go, if what is held allows it."""
        if not self.requests or self.tokens < tokens or now_s - self._told_s > VALID_S:
            return False
        self.requests -= 1
        self.tokens -= tokens
        self._taken += 1
        self._taken_tokens += tokens
        return True

    def wanted(self, waiting: Iterable[int], *, now_s: float) -> Wanted:
        """What to ask for beside the turns of rows that wait, of so many tokens each.

        Twice what goes between two calls, and less only as time passes: rows come in waves.
        """
        for tokens in waiting:
            self._taken += 1
            self._taken_tokens += tokens
        if self._taken:
            self._average = self._taken_tokens / self._taken
        fade = 0.5 ** ((now_s - self._asked_s) / _HALF_LIFE_S)
        self._target = min(max(2.0 * self._taken, self._target * fade), _MOST)
        self._asked_s, self._taken, self._taken_tokens = now_s, 0, 0
        return self._difference(int(self._target))

    def add(self, requests: int, tokens_each: int, *, now_s: float) -> None:
        """Hold what a call has brought."""
        self.requests += requests
        self.tokens += requests * tokens_each
        self._told_s = now_s

    def void(self) -> None:
        """Hold nothing: a pause has taken it back."""
        self.requests = self.tokens = 0

    def _difference(self, target: int) -> Wanted:
        requests = target - self.requests
        tokens = round(target * self._average) - self.tokens
        unused = max(0, -tokens)
        self.requests -= max(0, -requests)
        self.tokens -= unused
        return Wanted(requests, max(0, tokens) // requests if requests > 0 else 0, unused)
