"""What a report keeps of the outcomes is bounded, true, and the same for whoever reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flavor.types import Task, Usage
from tests.unit.worker.making import JOB, make_dead, make_outcome
from worker.digest import EXAMPLES, MOST_KINDS, MOST_VECTORS, OTHER, Digest, ErrorKind, project
from worker.histogram import quantile
from worker.jobs import Outcome
from worker.parts import read_part, write_part


def _digest(folder: Path, *parts: list[Outcome], task: Task = Task.CHAT) -> Digest:
    digest = Digest(JOB)
    for outcomes in parts:
        write_part(folder / "part", outcomes, task)
        digest.add(read_part(folder / "part"))
    return digest


def _usage(prompt: int, completion: int) -> Usage:
    total = prompt + completion
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total)


def _vectors(count: int, *, first: int = 0, size: int = 4) -> list[Outcome]:
    return [
        make_outcome(n, output=np.full(size, n, "<f4").tobytes())
        for n in range(first, first + count)
    ]


def _dead_row(error_type: str, **changes: Any) -> dict[str, Any]:
    row = {"row_id": "r1", "error_type": error_type, "error_status": 400, "error_code": None}
    return {**row, "error_message": "refused", **changes}


def test_lengths_are_those_of_all_parts(tmp_path: Path) -> None:
    one = [make_outcome(n, usage=_usage(100, 10)) for n in range(60)]
    other = [make_outcome(n, usage=_usage(100, 1000)) for n in range(60, 100)]

    digest = _digest(tmp_path, one, other, [make_dead(100)])

    assert set(digest.lengths) == {"input, in tokens", "output, in tokens"}
    outputs = digest.lengths["output, in tokens"]
    assert sum(outputs.values()) == 100
    assert quantile(outputs, 0.5) == pytest.approx(10, rel=0.01)
    assert quantile(outputs, 0.9) == pytest.approx(1000, rel=0.01)


def test_a_model_that_tells_no_usage_has_the_length_of_its_texts(tmp_path: Path) -> None:
    outcomes = [make_outcome(n, output="x" * 50, usage=None) for n in range(3)]

    digest = _digest(tmp_path, outcomes)

    assert set(digest.lengths) == {"output, in characters"}
    assert quantile(digest.lengths["output, in characters"], 0.5) == pytest.approx(50, rel=0.01)


def test_errors_are_counted_by_kind_with_the_first_few_examples() -> None:
    digest = Digest(JOB)

    for number in range(10):
        digest.add_dead(_dead_row("BadRequest", row_id=f"r{number}"), {"text": f"text {number}"})
    digest.add_dead(_dead_row("Timeout", error_status=None), None)

    found = digest.failures[ErrorKind("BadRequest", 400)]
    assert found.rows == 10
    assert [example.row_id for example in found.examples] == ["r0", "r1", "r2"][:EXAMPLES]
    assert found.examples[0].input == '{"text": "text 0"}'
    assert digest.failures[ErrorKind("Timeout")].rows == 1


def test_however_many_kinds_of_errors_there_are_few_are_kept() -> None:
    digest = Digest(JOB)

    for number in range(1000):
        digest.add_dead(_dead_row(f"Kind{number}"), None)

    assert len(digest.failures) == MOST_KINDS + 1
    assert digest.failures[OTHER].rows == 1000 - MOST_KINDS


def test_examples_are_cut_and_hold_no_key() -> None:
    digest = Digest(JOB)
    message = "Incorrect API key provided: sk-abcdefgh12345678. " + "x" * 10_000

    digest.add_dead(_dead_row("AuthenticationError", error_message=message), {"text": "y" * 9999})

    (found,) = digest.failures.values()
    assert "sk-abcdefgh" not in found.examples[0].message
    assert len(found.examples[0].message) == len(found.examples[0].input) == 300


def test_of_many_vectors_a_fair_sample_is_kept(tmp_path: Path) -> None:
    """Each of 10,000 has the same chance; so the sample's mean is near the mean of all."""
    parts = [_vectors(500, first=first) for first in range(0, 10_000, 500)]

    digest = _digest(tmp_path, *parts, task=Task.EMBEDDINGS)
    again = _digest(tmp_path, *parts, task=Task.EMBEDDINGS)

    kept = np.array([vector[0] for vector in digest.vectors])
    assert (len(kept), digest.vectors_seen) == (MOST_VECTORS, 10_000)
    assert len(set(kept.tolist())) == MOST_VECTORS
    assert kept.mean() == pytest.approx(5000, rel=0.06)  # 2 sigma of its mean
    assert np.array_equal(kept, [vector[0] for vector in again.vectors])


def test_rows_without_a_vector_are_left_out(tmp_path: Path) -> None:
    digest = _digest(tmp_path, [*_vectors(2), make_dead(2)], task=Task.EMBEDDINGS)

    assert len(digest.vectors) == digest.vectors_seen == 2


def test_a_map_shows_the_plane_in_which_vectors_differ() -> None:
    chance = np.random.default_rng(0)
    plane = chance.normal(size=(200, 2)) * [5, 2]
    vectors = [np.array([0, x, 1, y], dtype=np.float32) for x, y in plane]

    projected = project(vectors)

    assert projected is not None
    points, shown = projected
    assert shown == pytest.approx(1)
    assert np.abs(points[:, 0]) == pytest.approx(np.abs((plane - plane.mean(0))[:, 0]), abs=1.5)
    assert points.std(axis=0) == pytest.approx(plane.std(axis=0), rel=0.05)


def test_vectors_of_which_none_are_alike_have_a_map_and_the_same_one_each_time() -> None:
    vectors = list(np.eye(64, dtype=np.float32))

    maps = [project(vectors), project(vectors)]

    assert maps[0] is not None
    assert maps[1] is not None
    assert maps[0][1] == pytest.approx(2 / 63, rel=1e-3)
    assert np.array_equal(maps[0][0], maps[1][0])


@pytest.mark.parametrize(
    "vectors",
    [
        [],
        [np.ones(4, np.float32)] * 2,
        [np.ones(4, np.float32)] * 9,  # all are the same
        [np.full(4, np.nan, np.float32)] * 9,
        [np.ones(1, np.float32)] * 9,
    ],
)
def test_what_has_no_plane_has_no_map(vectors: list[Any]) -> None:
    assert project(vectors) is None
