"""Results in every format, whatever a row's input held and wherever they go."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flavor.errors import InputError
from producer.commands.results import results
from producer.outcomes import ResultFormat, write_results
from tests.unit.worker.making import make_spec

HUGE = 10**30
VALUES = {"text": "a\ud800b", "number": HUGE, "list": [HUGE, "\ud800"]}


SPEC = make_spec(is_input_logged=True)


def rows() -> Iterator[dict[str, Any]]:
    yield {"row_id": "r", "index": 0, "output": "ä", "input": dict(VALUES)}


@pytest.mark.parametrize("form", list(ResultFormat))
def test_any_input_can_be_written(tmp_path: Path, form: ResultFormat) -> None:
    path = tmp_path / "results"

    assert write_results(rows(), SPEC, to=path, form=form) == 1

    if form is ResultFormat.CSV:
        [row] = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        assert row["input.text"] == "a?b"
        assert row["input.number"] == str(HUGE)
        assert json.loads(row["input.list"]) == VALUES["list"]
    elif form is ResultFormat.JSONL:
        assert json.loads(path.read_text(encoding="utf-8"))["input"] == VALUES
    else:
        assert json.loads(pq.read_table(path)["input"][0].as_py()) == VALUES


@pytest.mark.parametrize("form", [ResultFormat.CSV, ResultFormat.JSONL])
def test_any_input_can_be_written_to_stdout(
    monkeypatch: pytest.MonkeyPatch, form: ResultFormat
) -> None:
    raw = io.BytesIO()
    stdout = io.TextIOWrapper(raw, encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stdout)

    assert write_results(rows(), SPEC, to=None, form=form) == 1

    stdout.flush()
    assert str(HUGE) in raw.getvalue().decode("utf-8")


@pytest.mark.parametrize("form", list(ResultFormat))
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, form: ResultFormat) -> None:
    path = tmp_path / "nowhere" / "x"

    with pytest.raises(InputError, match="No such file") as caught:
        write_results(rows(), SPEC, to=path, form=form)

    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["x.json", "x.csv.gz"])
def test_an_unknown_suffix_names_the_formats(name: str) -> None:
    with pytest.raises(InputError, match="--format: jsonl, csv, parquet"):
        results.main(["some-job", "-o", name], standalone_mode=False)
