"""A part: the outcomes of one batch as Parquet, and back."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flavor.errors import ErrorInfo
from flavor.types import Task, Usage
from tests.unit.worker.making import make_dead, make_outcome
from worker.jobs import Outcome, Verdict
from worker.parts import part_name, part_schema, read_outcomes, read_part, write_part

COLUMNS = [
    "row_id", "index", "verdict", "output", "finish_reason", "prompt_tokens", "completion_tokens",
    "total_tokens", "cached_tokens", "reasoning_tokens", "cost_usd", "attempts", "latency_s",
    "request_id", "response_model", "error_type", "error_status", "error_code", "error_message",
]  # fmt: skip
"""DESIGN section 7: other tools read them."""

TEXTS = [
    make_outcome(0, output="é\0\u0645\u0631", finish_reason="stop", cost_usd=1e-9, latency_s=0.5),
    make_outcome(1, output="", request_id="req", response_model="gpt-x", attempts=6),
    make_outcome(2, output=None, usage=None),
    Outcome(
        row_id="007",
        index=3,
        verdict=Verdict.REJECTED,
        request_id="req-9",
        attempts=1,
        usage=Usage(prompt_tokens=1, total_tokens=1),
        error=ErrorInfo(type="T", message="m", status=400, code="c", request_id="req-9"),
    ),
    Outcome(row_id="", index=2**40, verdict=Verdict.CANCELLED),
]


def _vector(*numbers: float) -> bytes:
    return np.asarray(numbers, "<f4").tobytes()


def _written(path: Path, outcomes: list[Outcome], task: Task = Task.CHAT) -> Path:
    write_part(path, outcomes, task)
    return path


def test_outcomes_survive(tmp_path: Path) -> None:
    path = _written(tmp_path / "part", TEXTS)

    assert read_outcomes(path) == TEXTS


def test_the_columns_are_those_that_other_tools_read(tmp_path: Path) -> None:
    part = read_part(_written(tmp_path / "part", TEXTS))

    assert part.schema.names == COLUMNS
    assert part.schema.equals(part_schema(Task.CHAT))
    assert part.num_rows == len(TEXTS)


def test_vectors_are_stored_as_they_are(tmp_path: Path) -> None:
    """To compress them or to note the least and the most of them takes time and gives nothing."""
    path = _written(tmp_path / "part", [make_outcome(0, output=_vector(0.5, -1))], Task.EMBEDDINGS)

    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    plain = {column.path_in_schema for column in columns if column.compression == "UNCOMPRESSED"}
    uncounted = {column.path_in_schema for column in columns if not column.is_stats_set}
    assert plain == uncounted == {"output.list.element"}


def test_embeddings_are_lists_of_float32(tmp_path: Path) -> None:
    outcomes = [
        make_outcome(0, output=_vector(0.5, -1, 2)),
        make_dead(1),
        make_outcome(2, output=b""),
        make_outcome(3, output=_vector(1e-30, 3, 4)),
    ]

    path = _written(tmp_path / "part", outcomes, Task.EMBEDDINGS)

    part = read_part(path)
    assert part.schema.field("output").type == pa.list_(pa.float32())
    assert part["output"].to_pylist()[:3] == [[0.5, -1.0, 2.0], None, []]
    assert read_outcomes(path) == outcomes


def test_no_dictionary_is_made_of_vectors(tmp_path: Path) -> None:
    outcomes = [make_outcome(index, output=_vector(index, 1)) for index in range(9)]

    path = _written(tmp_path / "part", outcomes, Task.EMBEDDINGS)

    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    with_dictionary = {c.path_in_schema.split(".")[0] for c in columns if c.has_dictionary_page}
    assert "verdict" in with_dictionary
    assert "output" not in with_dictionary


def test_a_batch_without_outcomes_is_an_empty_part(tmp_path: Path) -> None:
    for task in Task:
        path = _written(tmp_path / task, [], task)

        assert read_part(path).num_rows == 0
        assert read_part(path).schema.equals(part_schema(task))
        assert read_outcomes(path) == []


def test_a_batch_of_dead_embeddings_keeps_its_columns(tmp_path: Path) -> None:
    path = _written(tmp_path / "part", [make_dead(0)], Task.EMBEDDINGS)

    assert read_part(path)["output"].to_pylist() == [None]


def test_rows_stand_in_the_order_of_the_input(tmp_path: Path) -> None:
    outcomes = [make_outcome(index) for index in range(50)]
    random.Random(1).shuffle(outcomes)

    path = _written(tmp_path / "part", outcomes)

    assert read_part(path)["index"].to_pylist() == list(range(50))


@pytest.mark.parametrize("task", [Task.CHAT, Task.EMBEDDINGS])
def test_a_part_is_a_pure_function_of_its_batch(tmp_path: Path, task: Task) -> None:
    output = _vector(1, 2) if task is Task.EMBEDDINGS else "text"
    outcomes = [make_outcome(index, output=output) for index in range(20)]

    once = _written(tmp_path / "once", outcomes, task)
    again = _written(tmp_path / "again", list(reversed(outcomes)), task)

    assert once.read_bytes() == again.read_bytes()


def test_a_lone_surrogate_costs_one_character_not_the_part(tmp_path: Path) -> None:
    """Parquet's texts are UTF-8, which cannot hold it."""
    outcomes = [make_outcome(0, output="bad \ud800 text"), make_outcome(1, output="é fine")]

    path = _written(tmp_path / "part", outcomes)

    assert read_part(path)["output"].to_pylist() == ["bad ? text", "é fine"]
    assert read_outcomes(path)[1] == outcomes[1]


def test_a_lone_surrogate_in_an_error_or_an_id_is_no_obstacle(tmp_path: Path) -> None:
    error = ErrorInfo(type="T", message="\ud800")
    dead = replace(make_dead(0), row_id="a\udfff", error=error)

    path = _written(tmp_path / "part", [dead], Task.EMBEDDINGS)

    (row,) = read_part(path, ["row_id", "error_message"]).to_pylist()
    assert row == {"row_id": "a?", "error_message": "?"}


def test_only_the_named_columns_are_read(tmp_path: Path) -> None:
    part = read_part(_written(tmp_path / "part", TEXTS), ["index", "verdict"])

    assert part.schema.names == ["index", "verdict"]


@pytest.mark.parametrize(
    ("batch", "name"), [("0", "batch-000000.parquet"), (1234567, "batch-1234567.parquet")]
)
def test_a_parts_name_is_its_batch(batch: str | int, name: str) -> None:
    assert part_name(batch) == name
