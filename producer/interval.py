"""From a random sample of rows to all of them: an estimate and its 95 % interval.

A row's tokens mostly follow the length of its text, and that is known of every row. So each
quantity is taken as a line over the known one, and what the sample's rows differ from that line
gives the interval. Sources: W. G. Cochran, "Sampling Techniques", 3rd edition, 7.1 to 7.4 (the
linear regression estimator) and 2.8 (finite population); J. G. MacKinnon and H. White, 1985 (HC3:
long texts differ more, and a long text draws the line to itself); Student's t.

Measured over 1,000 pilots each of six made-up inputs, most with lengths that differ a lot: with
20 rows the interval held the truth in 91 to 96 of 100 cases, with 100 rows in 92 to 95. The plain
mean's held it in 87 to 96 and was up to 100 times wider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
_FEWEST_FOR_A_LINE = 10
"""With fewer rows the line would be fitted to chance: the plain mean is used."""
_MOST_LEVERAGE = 0.999
"""Of one row on the line. A row alone at the far end has all of it, and differs by nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What a sum over all rows is likely to be: within ``low`` and ``high`` in 95 of 100 cases."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known beforehand: of each row of the sample, and in sum of all rows."""

    of_sample: Sequence[float]
    total: float


def interval_of_total(sample: Sequence[float], *, rows: int, known: Known) -> Interval | None:
    """The sum over ``rows`` rows of which ``sample`` was measured; None for fewer than two.

    A sample of all rows is the sum itself.
    """
    from scipy.special import stdtrit  # 0.1 s, which an estimate without a pilot need not pay

    count = len(sample)
    if count < 2:
        return None
    values, along = np.asarray(sample, float), np.asarray(known.of_sample, float)
    off = along - along.mean()
    spread = float(off @ off)
    if count < _FEWEST_FOR_A_LINE or not spread:
        off, spread = np.zeros(count), 1.0
    slope, step = float(off @ values) / spread, known.total / rows - float(along.mean())
    rest = values - values.mean() - slope * off
    weights = 1 / count + step * off / spread
    own = np.minimum(1 / count + off * off / spread, _MOST_LEVERAGE)
    error = math.sqrt(float(((weights * rest / (1 - own)) ** 2).sum()) * (1 - count / rows))
    freedom = count - (2 if slope else 1)
    width = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error * rows
    total = (float(values.mean()) + slope * step) * rows
    # What the sample alone has used is certain, and nothing is paid back.
    return Interval(estimate=total, low=max(total - width, float(values.sum())), high=total + width)
