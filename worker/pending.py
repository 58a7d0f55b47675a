"""What waits for its checkpoint, and as what it is written there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.codec import encode_outcomes
from worker.jobs import PICO, Outcome, Verdict

ROWS_TOGETHER, BYTES_TOGETHER = 64, 512 * 1024
"""So many outcomes of a verdict are one value in Redis, or fewer of so much output together."""


@dataclass(slots=True)
class Pending:
    """Outcomes and request counts that wait for their checkpoint."""

    outcomes: list[Outcome] = field(default_factory=list)
    sent: int = 0
    answered: int = 0  # with any status; the others may have been paid for nothing
    retried: int = 0
    throttled: int = 0
    in_doubt: int = 0  # rows whose request may have been paid for, and brought nothing
    since_s: float = 0.0  # when the first of the outcomes came, by ``time.monotonic``
    _ends: list[int] = field(default_factory=list)  # of what was taken together and put back

    def __bool__(self) -> bool:
        return bool(self.outcomes or any(self.counts))

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Outcomes have come."""
        if outcomes and not self.outcomes:
            self.since_s = time.monotonic()
        self.outcomes += outcomes

    def take(self) -> Pending:
        """All of it, to be written; what arrives from now on waits for the next time."""
        taken = Pending(self.outcomes, *self.counts, self.since_s, self._ends)
        self.outcomes, self._ends = [], []
        self.sent = self.answered = self.retried = self.throttled = self.in_doubt = 0
        return taken

    def put_back(self, taken: Pending) -> None:
        """Undo a ``take`` that could not be written."""
        size = len(taken.outcomes)
        ends = [*taken._ends, size, *(size + end for end in self._ends)]
        self._ends = sorted({end for end in ends if end})
        self.outcomes[:0] = taken.outcomes
        self.since_s = taken.since_s if taken.outcomes else self.since_s
        self.sent += taken.sent
        self.answered += taken.answered
        self.retried += taken.retried
        self.throttled += taken.throttled
        self.in_doubt += taken.in_doubt

    @property
    def groups(self) -> Iterator[list[Outcome]]:
        """The outcomes in the groups in which they were taken, each time they are.

        Whoever writes again, as the reply was lost, must write the same under the same names.
        """
        starts = [0, *self._ends]
        for start, end in zip(starts, [*self._ends, len(self.outcomes)], strict=True):
            yield self.outcomes[start:end]

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """As ``lua/tally.lua`` takes them, in this order."""
        return (self.sent, self.answered, self.retried, self.throttled, self.in_doubt)


def values_of(outcomes: Sequence[Outcome], *, is_kept: bool) -> list[Any]:
    """Outcomes that are written together, as ``lua/tally.lua`` takes them.

    Where they are not to be kept, only counted, each value is empty. They share values: to write
    each by itself is several times the work, here as in Redis.
    """
    args: list[Any] = []
    for some in _together(outcomes):
        blob = encode_outcomes(some) if is_kept else b""
        args += (some[0].index, blob, len(some), *_counted(some))
    return args


def _together(outcomes: Sequence[Outcome]) -> Iterator[list[Outcome]]:
    """The outcomes that share a value: of one verdict, so that what is counted is counted once."""
    open_values: dict[Verdict, list[Outcome]] = {}
    sizes: dict[Verdict, int] = {}
    for outcome in outcomes:
        verdict, size = outcome.verdict, len(outcome.output or "")
        some = open_values.get(verdict)
        if (
            some is not None
            and len(some) < ROWS_TOGETHER
            and sizes[verdict] + size <= BYTES_TOGETHER
        ):
            some.append(outcome)
            sizes[verdict] += size
        else:
            if some is not None:
                yield some
            open_values[verdict], sizes[verdict] = [outcome], size
    yield from open_values.values()


def _counted(outcomes: Sequence[Outcome]) -> list[Any]:
    """Their verdict, which is the same, and the sums of what they used."""
    prompt = completion = total = cached = reasoning = pico = 0
    for outcome in outcomes:
        usage = outcome.usage
        if usage is not None:
            prompt += usage.prompt_tokens
            completion += usage.completion_tokens
            total += usage.total_tokens
            cached += usage.cached_tokens
            reasoning += usage.reasoning_tokens
        if outcome.cost_usd is not None:
            pico += round(outcome.cost_usd * PICO)
    return [outcomes[0].verdict.value, prompt, completion, total, cached, reasoning, pico]
