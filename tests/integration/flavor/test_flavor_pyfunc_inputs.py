"""Any other pyfunc is given what its own ``predict`` would be given, out of a file's rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, Schema, TensorSpec

from flavor.errors import InputError, RowError
from flavor.model import PyfuncModel, load_model, read_spec
from producer.formats import read_records
from producer.intake import SubmitOptions, read_asked
from producer.source import SourceOptions, Wanted, read_rows
from worker.settings import Settings

pytestmark = pytest.mark.integration


class Echo(PythonModel):
    """Says of each row what it was given."""

    # Without annotations: MLflow would take them for the data's schema, and validate by them.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
        if isinstance(model_input, pd.DataFrame):
            return [repr(record) for record in model_input.to_dict("records")]
        return [repr(list(row)) for row in model_input]


def signature(*inputs: Any) -> ModelSignature:
    return ModelSignature(inputs=Schema(list(inputs)))


A, B = ["x", "y"], [1, 2]
TIMES = pd.to_datetime(["2026-01-02 00:00:00", "2026-01-02 03:04:05"])

# What was logged, what predict is given, and which kinds of files say the same.
GIVEN: dict[str, tuple[ModelSignature | None, dict[str, Any], str]] = {
    "no signature": (None, {"a": A, "b": B, "params": A}, "jsonl"),
    "one nameless text": (signature(ColSpec("string")), {"text": A}, "jsonl csv txt"),
    "nameless columns": (
        signature(ColSpec("string"), ColSpec("long")),
        {"a": A, "b": B},
        "jsonl csv",
    ),
    "a tensor": (
        signature(TensorSpec(np.dtype("float64"), (-1, 2))),
        {"a": [1.5, 2.0], "b": [0.5, 1.0]},
        "jsonl",
    ),
    "optional": (
        signature(ColSpec("string", "a"), ColSpec("string", "b", required=False)),
        {"a": A, "b": A},
        "jsonl csv",
    ),
    "optional, missing": (
        signature(ColSpec("string", "a"), ColSpec("string", "b", required=False)),
        {"a": A},
        "jsonl csv",
    ),
    "optional, null": (
        signature(ColSpec("string", "a"), ColSpec("double", "b", required=False)),
        {"a": A, "b": [0.5, None]},
        "jsonl csv",
    ),
    "long": (signature(ColSpec("long", "b")), {"b": [1, 2**53 + 1]}, "jsonl csv"),
    "integer": (signature(ColSpec("integer", "b")), {"b": np.array(B, "int32")}, "jsonl csv"),
    "double": (signature(ColSpec("double", "b")), {"b": [0.5, 2.0]}, "jsonl csv"),
    "float": (signature(ColSpec("float", "b")), {"b": np.array([0.5, 2], "float32")}, "jsonl csv"),
    "boolean": (signature(ColSpec("boolean", "b")), {"b": [True, False]}, "jsonl csv"),
    "datetime": (signature(ColSpec("datetime", "b")), {"b": TIMES}, "jsonl csv"),
}


def ours(path: str, file: Path, **options: Any) -> list[Any]:
    spec = read_spec(path)
    model = load_model(spec, {})
    assert isinstance(model, PyfuncModel)
    rows = read_rows(
        read_records(str(file)),
        Wanted.by(spec),
        options=SourceOptions(params_column=None, **options),
    )
    return [reply.output for reply in model.predict([made.row for made in rows])]


def save(path: Path, logged: ModelSignature | None) -> str:
    mlflow.pyfunc.save_model(
        str(path), python_model=Echo(), signature=logged, pip_requirements=["mlflow"]
    )
    return str(path)


def write(frame: pd.DataFrame, folder: Path, kind: str) -> Path:
    file = folder / f"rows.{kind}"
    if kind == "csv":
        # As other tools write them: true, not Python's True.
        frame.replace({True: "true", False: "false"}).to_csv(file, index=False)
    elif kind == "txt":
        file.write_text("".join(f"{text}\n" for text in frame.iloc[:, 0]))
    else:
        file.write_text(frame.to_json(orient="records", lines=True, date_format="iso"))
    return file


@pytest.mark.parametrize("name", GIVEN)
def test_a_pyfunc_is_given_what_its_predict_would_be(name: str, tmp_path: Path) -> None:
    logged, columns, kinds = GIVEN[name]
    path = save(tmp_path / "model", logged)
    frame = pd.DataFrame(columns)

    expected = list(mlflow.pyfunc.load_model(path).predict(frame.copy()))

    for kind in kinds.split():
        assert ours(path, write(frame, tmp_path, kind)) == expected, kind


def test_the_ids_are_no_data_to_a_model_that_takes_whole_rows(tmp_path: Path) -> None:
    path = save(tmp_path / "model", None)
    file = write(pd.DataFrame({"id": A, "a": A}), tmp_path, "csv")

    assert ours(path, file, id_column="id") == ["{'a': 'x'}", "{'a': 'y'}"]


@pytest.mark.parametrize("value", ["1.5", "x", str(2**40)])
def test_what_does_not_fit_the_type_is_refused(value: str, tmp_path: Path) -> None:
    path = save(tmp_path / "model", signature(ColSpec("integer", "b")))
    file = write(pd.DataFrame({"b": [value]}), tmp_path, "csv")

    with pytest.raises(RowError):
        ours(path, file)


def test_an_unknown_parameter_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """The worker found it, after the job was written, and paused."""
    path = save(tmp_path / "model", None)
    options = SubmitOptions(input_path="rows.csv", model=path, params={"beams": 2})

    with pytest.raises(InputError, match="unknown parameter 'beams'"):
        read_asked(Settings(), options)
