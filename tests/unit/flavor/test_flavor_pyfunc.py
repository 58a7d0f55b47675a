"""What a pyfunc answers with, made one output per row."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flavor.errors import RowError
from flavor.model import ModelSpec, PyfuncModel
from flavor.types import Row, Task

SPEC = ModelSpec(uri="m", resolved_uri="m", task=Task.PYFUNC)
ROWS = [Row(row_id=t, index=i, values={"text": t}) for i, t in enumerate("ab")]


class Scripted:
    """Answers with what it was given, and keeps what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: Any = None
        self.params: Any = None

    def predict(self, frame: Any, params: Any = None) -> Any:
        self.asked, self.params = frame, params
        return self.answer


def outputs(answer: Any) -> list[Any]:
    return [reply.output for reply in PyfuncModel(SPEC, Scripted(answer), params={}).predict(ROWS)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (["x", None], ["x", None]),
        (("x", "y"), ["x", "y"]),
        ([1, {"ä": [2]}], ["1", '{"ä": [2]}']),
        (np.array([1, 2]), ["1", "2"]),
        (np.array([[0.5, 1.0], [2.0, 3.0]]), ["[0.5, 1.0]", "[2.0, 3.0]"]),
        ([np.float32(0.5), np.array([1])], ["0.5", "[1]"]),
        ([dt.date(2026, 1, 2), "y"], ['"2026-01-02"', "y"]),
        (pd.Series(["x", "y"]), ["x", "y"]),
        (pd.DataFrame({"label": ["x", "y"]}), ["x", "y"]),
        (
            pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}),
            ['{"a": "x", "b": 1}', '{"a": "y", "b": 2}'],
        ),
    ],
)
def test_text_stays_text_and_the_rest_is_json(answer: Any, expected: list[str | None]) -> None:
    assert outputs(answer) == expected


@pytest.mark.parametrize("answer", ["xy", 3, {"a": "b"}, ["x"], ["x", "y", "z"]])
def test_another_number_of_answers_is_an_error(answer: Any) -> None:
    with pytest.raises(RowError, match="predictions for 2 rows"):
        outputs(answer)


def test_rows_become_a_data_frame_and_params_go_along() -> None:
    pyfunc = Scripted(["x", "y"])

    PyfuncModel(SPEC, pyfunc, params={"k": 1}).predict(ROWS)

    assert pyfunc.asked.to_dict("records") == [{"text": "a"}, {"text": "b"}]
    assert pyfunc.params == {"k": 1}
