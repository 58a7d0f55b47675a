"""What the simulation was asked and what it charged, for tests and for the curious.

A row is *paid* when its request is accepted with 200, whatever then becomes of the answer:
cut off, garbled, or never read because the client died. That is how a provider bills.
A prompt costs a 64-bit number and a count here, so a job of 10^6 rows fits.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from producer.simulator.faults import Fault

KEPT_S = 120
SHOWN_PROMPTS = 1000  # above this, /stats leaves the map out unless asked for it
SHOWN_TEXT = 500  # characters


@dataclass(slots=True)
class Stats:
    """Counts since the start or the last reset."""

    now_s: Callable[[], float]
    requests: int = 0
    accepted: int = 0
    throttled: int = 0
    abandoned: int = 0  # the client left before its answer was sent
    prompt_tokens: int = 0
    completion_tokens: int = 0
    rows_accepted: int = 0
    rows_paid_twice: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    errors: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    paid: dict[int, int] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    accepted_per_s: dict[int, int] = field(default_factory=dict)

    def began(self) -> None:
        """A request came in."""
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def ended(self, *, is_delivered: bool) -> None:
        """Its answer went out, or had nobody to go to."""
        # A reset in between has forgotten that it began.
        self.in_flight = max(0, self.in_flight - 1)
        self.abandoned += not is_delivered

    def refused(self, status: int) -> None:
        """A request was answered with an error."""
        self.errors[status] += 1
        self.throttled += status == 429

    def struck(self, fault: Fault) -> None:
        """A fault was played."""
        self.faults[fault.value] += 1

    def charged(self, keys: tuple[int, ...], *, prompt_tokens: int, completion_tokens: int) -> None:
        """A request was accepted: its rows are paid."""
        self.accepted += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.rows_accepted += len(keys)
        paid = self.paid
        for key in keys:
            before = paid.get(key, 0)
            paid[key] = before + 1
            if before:
                self.rows_paid_twice += 1
        self._tick()

    def keep_text(self, text: str, *, key: int) -> None:
        """Remember a prompt's beginning for ``?texts=1``."""
        self.texts[key] = text[:SHOWN_TEXT]

    def fresh(self) -> "Stats":
        """Counts from nothing on, but for the requests that are under way."""
        return Stats(now_s=self.now_s, in_flight=self.in_flight, max_in_flight=self.in_flight)

    def payload(self, *, has_prompts: bool = False, has_texts: bool = False) -> dict[str, object]:
        """The body of ``GET /stats``."""
        body: dict[str, object] = {
            "simulated": True,
            "requests": self.requests,
            "accepted": self.accepted,
            "throttled": self.throttled,
            "abandoned": self.abandoned,
            "errors": {str(status): count for status, count in sorted(self.errors.items())},
            "faults": dict(self.faults),
            "tokens": {
                "prompt": self.prompt_tokens,
                "completion": self.completion_tokens,
                "total": self.prompt_tokens + self.completion_tokens,
            },
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "rows_accepted": self.rows_accepted,
            "rows_distinct": len(self.paid),
            "rows_paid_twice": self.rows_paid_twice,
            "accepted_per_s": list(self._recent()),
            "paid": None,
        }
        if has_prompts or len(self.paid) <= SHOWN_PROMPTS:
            body["paid"] = {f"{key:016x}": count for key, count in self.paid.items()}
        if has_texts:
            body["texts"] = {f"{key:016x}": text for key, text in self.texts.items()}
        return body

    def _tick(self) -> None:
        second = int(self.now_s())
        counts = self.accepted_per_s
        counts[second] = counts.get(second, 0) + 1
        if len(counts) > 2 * KEPT_S:
            for old in [past for past in counts if past <= second - KEPT_S]:
                del counts[old]

    def _recent(self) -> Iterator[tuple[int, int]]:
        """Unix second and count, oldest first; seconds without any are left out."""
        oldest = int(self.now_s()) - KEPT_S
        return ((second, n) for second, n in sorted(self.accepted_per_s.items()) if second > oldest)
