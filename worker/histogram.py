"""Amounts as counts on a scale of even steps: they add up over processes and over parts.

Durations in seconds, lengths in tokens. What is read from it is right to 1 %, in memory that does
not grow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

SMALLEST, LARGEST, STEP = 1e-4, 1e7, 1.02
_LOG_STEP = math.log(STEP)
_LAST = math.ceil(math.log(LARGEST / SMALLEST) / _LOG_STEP)


def place_of(amount: float) -> int:
    """The place on the scale that an amount belongs to; those off the scale go to its ends."""
    return min(_LAST, int(math.log(max(amount, SMALLEST) / SMALLEST) / _LOG_STEP))


def places_of(amounts: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """``place_of`` for many at once."""
    places = np.log(np.maximum(amounts, SMALLEST) / SMALLEST) / _LOG_STEP
    return np.minimum(places.astype(np.int64), _LAST)


def amount_at(place: int) -> float:
    """The amount in the middle of a place."""
    return float(SMALLEST * STEP ** (place + 0.5))


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """What ``share`` of those counted did not exceed; None without any."""
    wanted, seen = share * sum(counts.values()), 0
    for place in sorted(counts):
        seen += counts[place]
        if seen >= wanted:
            return amount_at(place)
    return None


def percentiles(counts: Mapping[int, int]) -> dict[str, float]:
    """Latencies as the run's metrics name them; nothing where nothing was counted."""
    values = {}
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        seconds = quantile(counts, share)
        if seconds is not None:
            values[f"latency.{name}_s"] = round(seconds, 6)
    return values
