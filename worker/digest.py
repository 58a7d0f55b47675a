"""What a report needs of the outcomes, gathered part by part in memory that does not grow.

Lengths as histograms, errors by kind with the first few examples, vectors as a sample that is the
same for whoever reads the same parts.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flavor.redact import redact
from flavor.types import Json
from worker.histogram import places_of

MOST_KINDS = 20
EXAMPLES = 3
MOST_VECTORS = 1000

_MOST_TEXT = 300


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """Errors that are told apart: by type, HTTP status and the API's code."""

    type: str
    status: int | None = None
    code: str | None = None


OTHER = ErrorKind("others")
"""All kinds beyond the first ``MOST_KINDS``."""


@dataclass(frozen=True, slots=True)
class Example:
    """One dead row, cut short."""

    row_id: str
    message: str
    input: str


@dataclass(slots=True)
class Failures:
    """How many rows died of one kind of error, and the first few of them."""

    rows: int = 0
    examples: list[Example] = field(default_factory=list)


class Digest:
    """Grows with the variety of the outcomes, not with their number."""

    def __init__(self, job_id: str) -> None:
        self.lengths: dict[str, Counter[int]] = {}  # by what they are of, then by place
        self.failures: dict[ErrorKind, Failures] = {}
        self.vectors: list[npt.NDArray[np.float32]] = []
        self.vector_tokens: list[int] = []
        self.vectors_seen = 0
        self._chance = np.random.default_rng(zlib.crc32(job_id.encode()))

    def add(self, part: pa.Table) -> None:
        """Take in the outcomes of one part; vectors that were not read are not sampled."""
        has_output = "output" in part.column_names
        is_text = has_output and not pa.types.is_list(part.schema.field("output").type)
        self._measure("input, in tokens", part["prompt_tokens"])
        if part["completion_tokens"].null_count < len(part):
            if is_text:
                self._measure("output, in tokens", part["completion_tokens"])
        elif is_text:  # a model that does not tell its usage
            self._measure("output, in characters", pc.utf8_length(part["output"]))
        if has_output and not is_text:
            self._sample(part)

    def add_dead(self, row: Mapping[str, Any], values: Json) -> None:
        """Take in a dead row (a part's columns) with its input, where that is known."""
        kind = ErrorKind(row["error_type"] or "unknown", row["error_status"], row["error_code"])
        if kind not in self.failures and len(self.failures) >= MOST_KINDS:
            kind = OTHER
        failures = self.failures.setdefault(kind, Failures())
        failures.rows += 1
        if len(failures.examples) < EXAMPLES:
            text = "" if values is None else json.dumps(values, ensure_ascii=False)
            message = row["error_message"] or ""
            failures.examples.append(Example(_cut(row["row_id"]), _cut(message), _cut(text)))

    def _measure(self, name: str, lengths: pa.ChunkedArray) -> None:
        known = lengths.drop_null().to_numpy()
        if len(known):
            places, counts = np.unique(places_of(known.astype(np.float64)), return_counts=True)
            of_name = self.lengths.setdefault(name, Counter())
            of_name.update(dict(zip(places.tolist(), counts.tolist(), strict=True)))

    def _sample(self, part: pa.Table) -> None:
        """Reservoir sampling: each vector so far has had the same chance to be kept."""
        if part["output"].null_count:  # else all vectors are copied for nothing
            part = part.filter(pc.is_valid(part["output"]))
        count = part.num_rows
        seen = np.arange(self.vectors_seen, self.vectors_seen + count)
        places = np.where(seen < MOST_VECTORS, seen, self._chance.integers(0, seen + 1))
        self.vectors_seen += count
        kept = np.flatnonzero(places < MOST_VECTORS)
        taken = part.select(["output", "prompt_tokens"]).take(kept)
        tokens = taken["prompt_tokens"].to_pylist()
        for place, vector, used in zip(places[kept], taken["output"], tokens, strict=True):
            values = vector.values.to_numpy().copy()  # not a view: it would keep the part
            if place < len(self.vectors):
                self.vectors[place], self.vector_tokens[place] = values, used or 0
            else:
                self.vectors.append(values)
                self.vector_tokens.append(used or 0)


def project(vectors: list[npt.NDArray[np.float32]]) -> tuple[npt.NDArray[np.float32], float] | None:
    """Vectors on their first two principal components, and the share of variance that these show.

    None where there are fewer than three vectors of one length, or all are the same.
    """
    size = len(vectors[0]) if vectors else 0
    points = np.array([vector for vector in vectors if len(vector) == size], dtype=np.float32)
    if len(points) < 3 or size < 2 or not np.isfinite(points).all():
        return None
    centred = points - points.mean(axis=0)
    total = float((centred**2).sum())
    if total <= 1e-6 * float((points**2).sum()):
        return None
    variances, directions = _two_largest(centred @ centred.T)
    return directions * np.sqrt(np.maximum(variances, 0)), float(variances.sum()) / total


def _two_largest(
    products: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The two largest eigenvalues of a symmetric matrix, and their vectors, largest first."""
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh  # for embeddings alone

    try:
        # A sixth of the time of all eigenvalues. The start is given, so that the result is the same
        # each time; random, so that it is not at right angles to what is looked for.
        start = np.random.default_rng(0).standard_normal(len(products)).astype(np.float32)
        values, vectors = eigsh(products, k=2, v0=start)
    except ArpackNoConvergence:  # all as large as one another
        values, vectors = np.linalg.eigh(products)
    return values[:-3:-1], vectors[:, :-3:-1]


def _cut(text: str) -> str:
    text = redact(text)
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"
