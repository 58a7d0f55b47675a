"""Tables in memory as a job's input, and a job's results as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flavor.errors import InputError
from flavor.types import Json
from producer.outcomes import Outcomes
from producer.values import plain
from worker.columns import Kind
from worker.inputs import from_json, to_json

if TYPE_CHECKING:  # a second to import: only where a table is made
    import pandas as pd

_ROWS_AT_ONCE = 10_000


def write_rows(data: pd.DataFrame | Iterable[Mapping[str, Json]], path: Path) -> None:
    """Write a DataFrame (without its index), or dicts, as JSONL, as ``submit`` reads it.

    What is missing (NaN, NaT, NA) becomes null; see ``producer.values``.

    Raises:
        InputError: a value has no form in JSON, or a row is no dict.
    """
    with path.open("wb") as file:
        for number, row in enumerate(_rows_of(data), start=1):
            if not isinstance(row, Mapping):
                raise InputError(
                    f"row {number} is no dict of columns; take a DataFrame, a path, or dicts"
                )
            values = {
                str(name): plain(value, f"row {number}, column {name!r}")
                for name, value in row.items()
            }
            file.write(to_json(values) + b"\n")


def to_frame(outcomes: Outcomes) -> pd.DataFrame:
    """All rows of a job's results at once. Whole numbers stay whole where some are missing."""
    import pandas as pd

    whole = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}
    schema = outcomes.schema
    table = pa.concat_tables([schema.empty_table(), *outcomes.tables(_ROWS_AT_ONCE)])
    frame = table.to_pandas(types_mapper=whole.get)
    for column in outcomes.columns:
        if column.kind is Kind.ANY:
            texts = table[column.name].to_pylist()
            values = [None if text is None else from_json(text) for text in texts]
            frame[column.name] = pd.Series(values, index=frame.index, dtype="object")
    return frame


def _rows_of(data: Any) -> Iterator[Any]:  # noqa: ANN401 - pandas has no types of its own
    if not hasattr(data, "iloc") or not hasattr(data, "columns"):
        yield from data
        return
    names = [str(name) for name in data.columns]
    if len(set(names)) < len(names):
        raise InputError("the DataFrame has two columns of the same name; rename one")
    for start in range(0, len(data), _ROWS_AT_ONCE):
        yield from data.iloc[start : start + _ROWS_AT_ONCE].to_dict("records")
