"""What each worker tells of a job every second, and what the living ones say together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from flavor.types import StrEnum


class Wait(StrEnum):
    """What keeps rows from being sent, as the run's metrics name it (``waiting.…``)."""

    REQUESTS = "requests_per_min"
    TOKENS = "tokens_per_min"
    PAUSE = "endpoint_pause"  # after a 429 the whole fleet holds still
    DOWN = "endpoint_down"
    CONCURRENCY = "concurrency"
    CAP = "cap"  # until it is known what requests in flight leave of it
    REDIS = "redis"
    OTHER = "other"


_WORDS = {
    "requests per minute": Wait.REQUESTS,
    "tokens per minute": Wait.TOKENS,
    "the endpoint's pause": Wait.PAUSE,
    "the endpoint, which is down": Wait.DOWN,
    "concurrency (": Wait.CONCURRENCY,
    "the cap": Wait.CAP,
    "Redis": Wait.REDIS,
}


def wait_of(waiting_for: str) -> Wait | None:
    """The kind of a wait that is said in words for people; None where there is none."""
    if not waiting_for:
        return None
    known = (wait for words, wait in _WORDS.items() if waiting_for.startswith(words))
    return next(known, Wait.OTHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one worker process does for a job. ``latencies`` are counts by ``histogram`` place."""

    in_flight: int = 0
    waiting_for: str = ""
    rows_per_s: float = 0.0
    latencies: Mapping[int, int] = field(default_factory=dict)

    def to_json(self, at_ms: int) -> bytes:
        """The report as it stands in Redis."""
        values = {
            "in_flight": self.in_flight,
            "waiting_for": self.waiting_for,
            "rows_per_s": round(self.rows_per_s, 3),
            "latencies": {str(place): count for place, count in self.latencies.items()},
            "at_ms": at_ms,
        }
        return orjson.dumps(values)


def read_report(text: bytes, *, since_ms: int) -> Report | None:
    """A report, also one of an older version; None where it was made before ``since_ms``."""
    said = orjson.loads(text)
    if said["at_ms"] <= since_ms:
        return None
    return Report(
        in_flight=said["in_flight"],
        waiting_for=said["waiting_for"],
        rows_per_s=said.get("rows_per_s", 0.0),
        latencies={int(place): count for place, count in said.get("latencies", {}).items()},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A job's last seconds: the reports of its workers, added up.

    ``waits`` are the share of its worker processes that wait for each thing.
    """

    in_flight: int = 0
    waiting_for: str | None = None
    rows_per_s: float = 0.0
    latencies: Mapping[int, int] = field(default_factory=dict)
    waits: Mapping[Wait, float] = field(default_factory=dict)


def join(reports: Sequence[Report]) -> Pace:
    """What workers say together."""
    waits = Counter(wait for report in reports if (wait := wait_of(report.waiting_for)))
    latencies: Counter[int] = Counter()
    for report in reports:
        latencies.update(report.latencies)
    return Pace(
        in_flight=sum(report.in_flight for report in reports),
        waiting_for=next((said.waiting_for for said in reports if said.waiting_for), None),
        rows_per_s=sum(report.rows_per_s for report in reports),
        latencies=latencies,
        waits={wait: count / len(reports) for wait, count in waits.items()},
    )
