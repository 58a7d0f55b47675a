"""Any other MLflow model, run through its own ``predict``. What it spends is unknown to us."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from flavor.errors import ErrorInfo, InputError, RowError, TrackingError, is_unreachable
from flavor.params import overlay, unknown_param
from flavor.spec import ModelSpec
from flavor.types import Json, Reply, Row

Foreign: TypeAlias = Any
"""Data frames, arrays, models: what a pyfunc is, takes and answers with is its own affair."""


class PyfuncModel:
    """A loaded pyfunc. ``predict`` blocks: call it from a thread."""

    def __init__(
        self,
        spec: ModelSpec,
        pyfunc: Foreign,
        *,
        params: Mapping[str, Json],
        inputs: Foreign = None,
    ) -> None:
        self.spec = spec
        self.params = params
        self._pyfunc = pyfunc
        self._inputs = inputs  # MLflow's Schema of what it takes, if it has one

    def predict(self, rows: Sequence[Row]) -> list[Reply]:
        """One reply per row, in row order, without usage. Text stays text, the rest becomes JSON.

        Raises:
            RowError: the model's code failed, or answered for fewer or more rows than it was asked.
        """
        # Costs half a second, and only pyfuncs need it; its stubs are a release behind.
        import pandas as pd

        frame = pd.DataFrame([dict(row.values) for row in rows])
        try:
            answer = self._predict(_typed(frame, self._inputs))
        except Exception as error:
            # The model's code may raise anything; which row is to blame, bisecting will show.
            raise _predict_error(f"{type(error).__name__}: {error}"[:500]) from error
        outputs = _outputs(answer)
        if len(outputs) != len(rows):
            raise _predict_error(f"{len(outputs)} predictions for {len(rows)} rows")
        return [Reply(output=output) for output in outputs]

    def _predict(self, frame: Foreign) -> Foreign:
        if self.params:
            return self._pyfunc.predict(frame, params=dict(self.params))
        return self._pyfunc.predict(frame)


def load_pyfunc(spec: ModelSpec, params: Mapping[str, Json]) -> PyfuncModel:
    """Load a pyfunc, which runs its code. Blocks.

    Raises:
        InputError: a parameter is not in the model's signature, or the model cannot be loaded.
        TrackingError: MLflow's server does not answer.
    """
    import mlflow.pyfunc  # costs seconds, which a command without a pyfunc need not pay
    from mlflow.exceptions import MlflowException

    check_pyfunc_params(spec, params)
    try:
        pyfunc = mlflow.pyfunc.load_model(spec.resolved_uri)
    except Exception as error:
        # Loading runs the model's own code, which may raise anything, also of servers of its own.
        if isinstance(error, MlflowException) and is_unreachable(error):
            raise TrackingError(f"cannot load {spec.resolved_uri}: {error}") from error
        raise InputError(f"cannot load {spec.resolved_uri}: {error}") from error
    inputs = pyfunc.metadata.get_input_schema()
    return PyfuncModel(spec, pyfunc, params=overlay(params), inputs=inputs)


def check_pyfunc_params(spec: ModelSpec, params: Mapping[str, Json]) -> None:
    """Refuse parameters that are not in the model's signature.

    Raises:
        InputError: names the first of them and, where there is one, what was probably meant.
    """
    known = frozenset(spec.params)
    for name in params:
        if name not in known:
            raise InputError(unknown_param(name, known, of="the signature of this pyfunc"))


def _typed(frame: Foreign, inputs: Foreign) -> Foreign:
    """The columns in the types that the signature has for them.

    Rows come as JSON or as CSV's texts, and MLflow converts neither a text to a number nor a number
    to fewer bits. What does not fit stays as it is, for MLflow to refuse.
    """
    if inputs is None or inputs.is_tensor_spec():
        return frame
    names = inputs.input_names() if inputs.has_input_names() else frame.columns
    for name, kind in zip(names, inputs.input_types(), strict=False):
        if name in frame.columns:
            # Nested types are MLflow's own to convert, and have no name.
            frame[name] = _converted(frame[name], getattr(kind, "name", ""), of=kind)
    return frame


def _converted(column: Foreign, kind: str, *, of: Foreign) -> Foreign:
    import pandas as pd  # as above

    match kind:
        case "long" | "integer":
            numbers = pd.to_numeric(column)
            whole = numbers.astype(of.to_numpy())
            return whole if (whole == numbers).all() else numbers
        case "double" | "float":
            return pd.to_numeric(column).astype(of.to_numpy())
        case "boolean":
            return column.replace({"true": True, "false": False}).infer_objects()
        case "datetime":
            return pd.to_datetime(column, format="ISO8601").astype("datetime64[ns]")
        case "binary":  # as MLflow's own server reads it out of JSON
            return column.map(lambda text: base64.b64decode(text, validate=True))
    return column


def _outputs(answer: Foreign) -> list[str | None]:
    """Rows of whatever came back: data frame, series, array or list."""
    if hasattr(answer, "to_json") and hasattr(answer, "columns"):
        return _frame_outputs(answer)
    plain = answer.tolist() if hasattr(answer, "tolist") else answer
    if isinstance(plain, (str, bytes, Mapping)) or not hasattr(plain, "__iter__"):
        plain = [plain]
    return [_text(value) for value in plain]


def _frame_outputs(frame: Foreign) -> list[str | None]:
    """A frame of one column is that column; of several, a JSON object per row."""
    if len(frame.columns) == 1:
        return [_text(value) for value in frame.iloc[:, 0].tolist()]
    return [_text(record) for record in json.loads(frame.to_json(orient="records"))]


def _text(value: Json) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=_jsonable)


def _jsonable(value: Foreign) -> Json:
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def _predict_error(message: str) -> RowError:
    return RowError(ErrorInfo(type="PredictError", message=message))
