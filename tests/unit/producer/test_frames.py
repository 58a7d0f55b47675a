"""Tables in memory, written as the JSONL that a job reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flavor.errors import InputError
from producer.frames import write_rows


def written(folder: Path, data: Any) -> list[dict[str, Any]]:
    write_rows(data, folder / "rows.jsonl")
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_numpys_own_times_are_no_mere_numbers(tmp_path: Path) -> None:
    """tolist makes 1767312000000000000 of one in nanoseconds, the usual unit."""
    moment = np.datetime64("2026-01-02T00:00:00", "ns")
    times = np.array([moment, "NaT"], "M8[ns]")

    assert written(
        tmp_path, [{"at": moment, "all": times, "day": np.datetime64("2026-01-02")}]
    ) == [{"at": "2026-01-02T00:00:00", "all": ["2026-01-02T00:00:00", None], "day": "2026-01-02"}]
    with pytest.raises(InputError, match="row 1, column 'for'"):
        written(tmp_path, [{"for": np.timedelta64(5, "ns")}])


@pytest.mark.parametrize("data", [pd.Series(["a"], name="text"), ["a"], {"text": "a"}])
def test_what_is_no_table_is_refused_with_what_would_be(data: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="take a DataFrame, a path, or dicts"):
        written(tmp_path, data)
