"""How many tokens a job's requests will use, learned from the usage of those that were answered.

The first requests go by the estimate that was rendered with them; each answer teaches how far the
prompt's was off and how long answers are. Settling corrects the rest, so this need not be exact:
it only keeps the shared bucket from being held by tokens that nobody will use.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from flavor.types import Request

_MEMORY = 2000.0
"""Requests after which what was learned weighs half: texts may be sorted by length."""

_ENOUGH = 8
"""Answers before they are believed."""


class Expected(NamedTuple):
    """The tokens that a request is expected to use: a mean, so not whole in its parts.

    ``is_capped`` where they were taken out of the job's cap.
    """

    prompt: float
    completion: float
    is_capped: bool = False

    @property
    def tokens(self) -> int:
        """Both, whole."""
        return round(self.prompt + self.completion)


class Expectation:
    """One job's, in one process. Belongs to one event loop."""

    def __init__(self) -> None:
        self._requests = 0.0
        self._rows = 0.0
        self._asked_estimated = 0.0
        self._asked = 0.0
        self._answered = 0.0

    def of(self, request: Request) -> Expected:
        """What to reserve for a request; for the answer at most what its parameters allow."""
        prompt = request.estimated_tokens - request.answer_tokens
        if self._requests < _ENOUGH:
            return Expected(prompt, request.answer_tokens)
        answer = self._answered / self._rows * request.rows
        if request.is_answer_bounded:
            answer = min(answer, request.answer_tokens)
        asked = prompt * self._asked_ratio
        return Expected(asked, max(1, math.ceil(asked + answer)) - asked)

    def learn(self, request: Request, *, prompt_tokens: int, completion_tokens: int) -> None:
        """Take in what one request used."""
        if self._requests >= _MEMORY:
            self._requests /= 2
            self._rows /= 2
            self._asked_estimated /= 2
            self._asked /= 2
            self._answered /= 2
        self._requests += 1
        self._rows += request.rows
        self._asked_estimated += request.estimated_tokens - request.answer_tokens
        self._asked += prompt_tokens
        self._answered += completion_tokens

    @property
    def _asked_ratio(self) -> float:
        return self._asked / self._asked_estimated if self._asked_estimated else 1.0
