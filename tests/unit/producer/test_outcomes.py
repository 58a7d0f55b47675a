"""Results: every outcome beside its input, in order, in every format, whatever a row held."""

from __future__ import annotations

import csv
import errno
import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flavor.errors import InputError
from flavor.types import Task
from producer.commands.results import results
from producer.frames import to_frame, write_rows
from producer.writing import ResultFormat, write_results
from tests.unit.producer.running import FinishedRun
from tests.unit.worker.making import make_dead, make_outcome
from worker.jobs import Verdict

HUGE = 10**30
ODD = {"text": "a\ud800b", "number": HUGE, "list": [HUGE, "\ud800"]}


@pytest.fixture
def run(tmp_path: Path) -> FinishedRun:
    """Five rows, the second one dead."""
    made = FinishedRun(tmp_path, [{"id": n, "text": f"text {n}"} for n in range(5)])
    made.publish(1, make_outcome(2), make_outcome(3))
    made.publish(0, make_outcome(0), make_dead(1))
    made.publish(2, make_outcome(4))
    return made


def test_rows_come_in_the_inputs_order_with_the_inputs_columns_before_the_outcomes(
    run: FinishedRun,
) -> None:
    rows = run.rows()

    assert [row["row_id"] for row in rows] == [f"r{n}" for n in range(5)]
    assert [row["text"] for row in rows] == [f"text {n}" for n in range(5)]
    assert list(rows[0])[:5] == ["row_id", "index", "id", "text", "output"]
    assert rows[0]["output"] == "answer 0"
    assert rows[1]["verdict"] == "rejected"


def test_of_a_running_job_what_is_published_can_be_read(run: FinishedRun) -> None:
    (run.runs.folder / "outputs/batch-000001.parquet").unlink()

    assert [row["index"] for row in run.rows()] == [0, 1, 4]


def test_what_was_rescued_is_read_where_no_part_has_it(run: FinishedRun) -> None:
    """Redis was wiped: batch 1 has no part yet, two workers have rescued rows of it."""
    (run.runs.folder / "outputs/batch-000001.parquet").unlink()
    run.publish(1, make_outcome(3), folder="rescued", name="batch-000001-a.parquet")
    run.publish(1, make_outcome(2), folder="rescued", name="batch-000001-b.parquet")
    run.publish(0, make_outcome(1, output="old"), folder="rescued", name="batch-000000-a.parquet")

    rows = run.rows()

    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[1]["verdict"] == "rejected"  # the part wins


def test_only_the_columns_that_were_asked_for_come_in_their_order(run: FinishedRun) -> None:
    rows = run.rows(columns=["output", "text", "row_id"])

    assert list(rows[0].items()) == [("output", "answer 0"), ("text", "text 0"), ("row_id", "r0")]


def test_an_unknown_column_is_an_error_that_names_those_there_are(run: FinishedRun) -> None:
    with pytest.raises(InputError, match=r"no column 'txt'.*row_id, index, id, text, output"):
        run.rows(columns=["txt"])


def test_only_dead_rows_with_what_was_asked_and_why_it_failed(run: FinishedRun) -> None:
    [row] = run.rows(only_failed=True)

    assert (row["row_id"], row["text"]) == ("r1", "text 1")
    assert row["error_message"]


def test_a_column_of_the_inputs_that_is_called_as_one_of_ours_keeps_its_values(
    tmp_path: Path,
) -> None:
    run = FinishedRun(tmp_path, [{"output": "mine", "input.output": "too", "text": "t"}])
    run.publish(0, make_outcome(0))

    [row] = run.rows()

    assert (row["output"], row["input.output"]) == ("answer 0", "mine")
    assert row["input.input.output"] == "too"


def test_without_a_logged_input_there_are_the_outcomes_alone(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path, [{"text": "t"}], is_input_logged=False)
    run.publish(0, make_outcome(0))

    [row] = run.rows()

    assert "text" not in row
    assert row["output"] == "answer 0"


def test_an_input_of_ever_new_names_is_one_column(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path, [{f"key {n}": n for n in range(2000)}])
    run.publish(0, make_outcome(0))

    [row] = run.rows()

    assert run.spec.input_columns == {}
    assert row["input"]["key 7"] == 7


@pytest.fixture
def answers(tmp_path: Path) -> FinishedRun:
    made = FinishedRun(tmp_path, [{"text": f"t{n}", "label": "given"} for n in range(6)])
    outputs = [
        '{"label": "good", "score": 1}',
        '{"label": "bad", "score": 0.5, "why": ["a", "b"], "output": 3}',
        "no JSON at all",
        "[1, 2]",
        '{"label": "cut of',
    ]
    outcomes = [make_outcome(n, output=output) for n, output in enumerate(outputs)]
    for batch in range(3):
        made.publish(batch, *[*outcomes, make_dead(5)][2 * batch : 2 * batch + 2])
    return made


def test_json_answers_are_spread_into_columns(answers: FinishedRun) -> None:
    rows = answers.rows(has_json_columns=True)

    assert [row["output.label"] for row in rows] == ["good", "bad", None, None, None, None]
    assert [row["score"] for row in rows] == [1, 0.5, None, None, None, None]
    assert rows[1]["why"] == ["a", "b"]
    assert rows[1]["output.output"] == 3
    assert rows[0]["label"] == "given"


def test_answers_that_do_not_parse_are_counted_and_listed(answers: FinishedRun) -> None:
    with answers.open(has_json_columns=True) as outcomes:
        rows = list(outcomes.rows())

    assert outcomes.answers.unparsed == 3
    assert outcomes.answers.unparsed_ids == ["r2", "r3", "r4"]
    assert [bool(row["json_error"]) for row in rows] == [False, False, True, True, True, False]
    assert rows[2]["output"] == "no JSON at all"  # nothing is lost


def test_embeddings_are_no_json_answers(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path, [{"text": "t"}], task=Task.EMBEDDINGS)

    with pytest.raises(InputError, match="--json-columns"):
        run.rows(has_json_columns=True)


@pytest.mark.parametrize("form", list(ResultFormat))
def test_any_input_can_be_written(tmp_path: Path, form: ResultFormat) -> None:
    run = FinishedRun(tmp_path, [ODD])
    run.publish(0, make_outcome(0, output="ä"))
    path = tmp_path / "results"

    with run.open() as outcomes:
        assert write_results(outcomes, to=path, form=form) == 1

    if form is ResultFormat.CSV:
        [row] = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        assert row["text"] == "a?b"
        assert row["number"] == str(HUGE)
        assert json.loads(row["list"]) == ODD["list"]
    elif form is ResultFormat.JSONL:
        assert json.loads(path.read_text(encoding="utf-8")).items() >= ODD.items()
    else:
        [row] = pq.read_table(path).to_pylist()
        assert row["text"] == "a?b"
        assert json.loads(row["number"]) == HUGE
        assert json.loads(row["list"]) == ODD["list"]


@pytest.mark.parametrize("form", [ResultFormat.CSV, ResultFormat.JSONL])
def test_any_input_can_be_written_to_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: ResultFormat
) -> None:
    run = FinishedRun(tmp_path, [ODD])
    run.publish(0, make_outcome(0))
    raw = io.BytesIO()
    stdout = io.TextIOWrapper(raw, encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stdout)

    with run.open() as outcomes:
        assert write_results(outcomes, to=None, form=form) == 1

    stdout.flush()
    assert str(HUGE) in raw.getvalue().decode("utf-8")


def test_columns_of_a_table_have_the_types_of_their_values(tmp_path: Path) -> None:
    values: list[dict[str, Any]] = [
        {"text": "a", "whole": 1, "part": 2**60, "is_good": True, "empty": None, "mixed": 1},
        {"text": "b", "whole": None, "part": 0.5, "is_good": False, "empty": None, "mixed": "x"},
    ]
    run = FinishedRun(tmp_path, values)
    run.publish(0, make_outcome(0), make_outcome(1))
    path = tmp_path / "out.parquet"

    with run.open() as outcomes:
        write_results(outcomes, to=path, form=ResultFormat.PARQUET)

    schema = pq.read_schema(path)
    kinds = {name: str(schema.field(name).type) for name in values[0]}
    assert kinds == {
        "text": "string",
        "whole": "int64",
        "part": "double",
        "is_good": "bool",
        "empty": "string",
        "mixed": "string",
    }


def test_a_job_without_a_published_row_is_an_empty_table_with_its_columns(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path, [{"text": "t"}])
    path = tmp_path / "out.csv"

    with run.open() as outcomes:
        assert write_results(outcomes, to=path, form=ResultFormat.CSV) == 0

    assert path.read_text().startswith("row_id,index,text,output,verdict")


@pytest.mark.parametrize("form", list(ResultFormat))
def test_a_file_that_cannot_be_written_is_named(
    tmp_path: Path, run: FinishedRun, form: ResultFormat
) -> None:
    path = tmp_path / "nowhere" / "x"

    with run.open() as outcomes, pytest.raises(InputError, match="No such file") as caught:
        write_results(outcomes, to=path, form=form)

    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["x.json", "x.csv.gz"])
def test_an_unknown_suffix_names_the_formats(name: str) -> None:
    with pytest.raises(InputError, match="--format: jsonl, csv, parquet"):
        results.main(["some-job", "-o", name], standalone_mode=False)


def test_a_dataframe_of_results_has_whole_numbers_and_objects(answers: FinishedRun) -> None:
    with answers.open(has_json_columns=True) as outcomes:
        frame = to_frame(outcomes)

    assert list(frame["index"]) == [0, 1, 2, 3, 4, 5]
    assert str(frame["total_tokens"].dtype) == "Int64"
    assert frame["total_tokens"].sum() == 5 * 15
    assert frame["why"][1] == ["a", "b"]
    assert list(frame[frame.verdict != "succeeded"].row_id) == ["r5"]


def test_embeddings_stay_numbers_in_a_dataframe(tmp_path: Path) -> None:
    import numpy as np

    run = FinishedRun(tmp_path, [{"text": "t"}], task=Task.EMBEDDINGS)
    vector = np.arange(3, dtype="<f4")
    run.publish(0, make_outcome(0, output=vector.tobytes()))

    with run.open() as outcomes:
        frame = to_frame(outcomes)

    assert frame["output"][0].tolist() == [0.0, 1.0, 2.0]


def test_a_dataframe_goes_in_as_its_values_say(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "text": ["a", None],
            "stars": pd.array([5, None], dtype="Int64"),
            "at": [pd.Timestamp("2026-01-02T03:04:05"), pd.NaT],
            "messages": [[{"role": "user", "content": "hi"}], []],
            7: [1.5, float("nan")],
        },
        index=[10, 20],
    )
    path = tmp_path / "data.jsonl"

    write_rows(frame, path)

    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == {
        "text": "a",
        "stars": 5,
        "at": "2026-01-02T03:04:05",
        "messages": [{"role": "user", "content": "hi"}],
        "7": 1.5,
    }
    assert second == {"text": None, "stars": None, "at": None, "messages": [], "7": None}


@pytest.mark.parametrize(
    ("data", "said"),
    [(["a text"], "row 1 is no dict"), ([{"a": 1}, {"a": b"raw"}], "row 2, column 'a'.*bytes")],
)
def test_what_is_no_row_is_refused_with_its_place(tmp_path: Path, data: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        write_rows(data, tmp_path / "data.jsonl")


def test_the_dead_are_of_both_kinds(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path, [{"text": "a"}, {"text": "b"}, {"text": "c"}])
    run.publish(0, make_dead(0, verdict=Verdict.REJECTED), make_dead(1, verdict=Verdict.EXHAUSTED))
    run.publish(1, make_outcome(2, verdict=Verdict.CANCELLED, output=None))

    assert [row["verdict"] for row in run.rows(only_failed=True)] == ["rejected", "exhausted"]


def test_a_stdout_that_takes_nothing_is_named(
    run: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.RawIOBase):
        refused = False

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            if not self.refused:
                self.refused = True
                raise OSError(errno.ENOSPC, "No space left on device")
            return len(data)

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Full())))

    with run.open() as outcomes, pytest.raises(InputError, match="to stdout: No space left"):
        write_results(outcomes, to=None, form=ResultFormat.JSONL)
