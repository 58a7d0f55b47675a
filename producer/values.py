"""Values of tables in the form that JSON has for them: what Parquet and pandas know beyond it.

Times become ISO 8601 text and decimals text, so that no digit is lost; NaN is null; nested values
stay nested. Bytes and durations have no such form and are refused.
"""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

from flavor.errors import InputError
from flavor.types import Json

_MISSING = {"NaTType", "NAType"}
"""pandas' own nulls, by name: whoever has no DataFrame shall not wait for pandas."""

_NANOSECONDS = {"M8[ns]": "M8[us]", "m8[ns]": "m8[us]"}
"""numpy's times in units that Python has: of nanoseconds ``tolist`` makes mere numbers."""


def plain(value: Any, place: str) -> Json:  # noqa: ANN401 - whatever a cell may hold
    """The value as JSON has it.

    Raises:
        InputError: it has none; the text begins with ``place``.
    """
    match _unboxed(value):
        case dict() as values:
            return {str(key): plain(inner, place) for key, inner in values.items()}
        case list() | tuple() as values:
            return [plain(inner, place) for inner in values]
        case float() as number:
            return number if math.isfinite(number) else None
        case dt.datetime() | dt.date() | dt.time() as moment:
            return moment.isoformat()
        case Decimal() as number:
            return str(number)
        case None | bool() | int() | str() as same:
            return same
    raise InputError(
        f"{place}: values of type {type(value).__name__} have no form in JSON; write the column as "
        "text (bytes as base64, for instance) or leave it out"
    )


def _unboxed(value: Any) -> Any:  # noqa: ANN401 - as plain's
    """numpy's scalars and arrays as Python's own; pandas' nulls as None."""
    coarser = _NANOSECONDS.get(getattr(getattr(value, "dtype", None), "str", "")[1:])
    if coarser is not None:
        value = value.astype(coarser)
    if hasattr(value, "tolist"):
        value = value.tolist()
    return None if type(value).__name__ in _MISSING else value
