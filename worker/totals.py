"""A job's totals, summed from the outcomes themselves, part by part, in memory that does not grow.

Pure arithmetic: whoever reads the same parts gets the same figures, so a batch that was worked on
twice counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worker.histogram import percentiles, places_of, quantile
from worker.jobs import PICO, VERDICT_FIELDS, Outcome, Verdict

_TOKENS = ("prompt", "completion", "total", "cached", "reasoning")


@dataclass(slots=True)
class Totals:
    """Sums over parts. Latencies are kept as a histogram: percentiles are right to 1 %."""

    rows: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_TOKENS, 0))
    cost_pico: int = 0
    has_cost: bool = False
    has_usage: bool = False
    attempts: int = 0
    latencies: Counter[int] = field(default_factory=Counter)

    def add(self, part: pa.Table) -> None:
        """Add the outcomes of one part."""
        for counted in pc.value_counts(part["verdict"].combine_chunks()).to_pylist():
            self.rows[Verdict(counted["values"])] += counted["counts"]
        for name in _TOKENS:
            total = pc.sum(part[f"{name}_tokens"]).as_py()
            self.tokens[name] += total or 0
            self.has_usage = self.has_usage or total is not None
        self.attempts += pc.sum(part["attempts"]).as_py() or 0
        costs = part["cost_usd"].drop_null().to_numpy()
        if len(costs):
            self.has_cost = True
            self.cost_pico += int(np.rint(costs * PICO).astype(np.int64).sum())
        seconds = part["latency_s"].drop_null().to_numpy()
        if len(seconds):
            places, counts = np.unique(places_of(seconds), return_counts=True)
            self.latencies.update(dict(zip(places.tolist(), counts.tolist(), strict=True)))

    def add_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Add outcomes that are at hand, for counting alone: their latencies are left out."""
        for outcome in outcomes:
            self.rows[outcome.verdict] += 1
            if outcome.usage is not None:
                for name in _TOKENS:
                    self.tokens[name] += getattr(outcome.usage, f"{name}_tokens")
            if outcome.cost_usd is not None:
                self.cost_pico += round(outcome.cost_usd * PICO)

    @property
    def rows_total(self) -> int:
        """Rows with an outcome."""
        return sum(self.rows.values())

    @property
    def cost_usd(self) -> float | None:
        """What the rows cost; None where no price was known."""
        return self.cost_pico / PICO if self.has_cost else None

    def latency_s(self, share: float) -> float | None:
        """The latency that ``share`` of the requests did not exceed; None without any."""
        return quantile(self.latencies, share)

    def counts(self) -> dict[str, int]:
        """The figures as Redis keeps them (``job:{J}:counts``)."""
        counts = {VERDICT_FIELDS[verdict]: n for verdict, n in self.rows.items()}
        counts |= {f"tokens_{name}": n for name, n in self.tokens.items()}
        return {**counts, "cost_pico": self.cost_pico}

    def metrics(self) -> dict[str, float]:
        """The figures as the run's metrics. What is unknown is left out, not zero."""
        values: dict[str, float] = {f"rows.{v.value}": n for v, n in self.rows.items()}
        if self.has_usage:
            values |= {f"tokens.{name}": n for name, n in self.tokens.items()}
        if self.cost_usd is not None:
            values["cost.usd"] = self.cost_usd
        return values | percentiles(self.latencies)
