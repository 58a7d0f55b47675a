"""What Parquet's types become, and which have no form in JSON."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flavor.errors import InputError
from producer.formats import read_records


def values(input_path: str) -> list[dict[str, object]]:
    return [record.values for record in read_records(input_path)]


def test_parquet_values_become_what_json_can_say(tmp_path: Path) -> None:
    berlin = dt.timezone(dt.timedelta(hours=1))
    columns = {
        "text": pa.array(["a", None], pa.large_string()),
        "word": pa.array(["x", "x"]).dictionary_encode(),
        "score": pa.array([math.nan, 0.5]),
        "half": pa.array([1.5, None], pa.float16()),
        "count": pa.array([1, None]),
        "flag": pa.array([True, None]),
        "price": pa.array([Decimal("1.10"), None]),
        "day": pa.array([dt.date(2024, 2, 29), None]),
        "time": pa.array([dt.time(1, 2, 3), None]),
        "naive": pa.array([dt.datetime(2024, 1, 2, 3, 4, 5), None], pa.timestamp("us")),  # noqa: DTZ001
        "nanos": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
        "zoned": pa.array(
            [dt.datetime(2024, 1, 2, 3, tzinfo=berlin), None], pa.timestamp("s", "UTC")
        ),
        "nested": pa.array([{"a": [1.0, math.nan], "d": dt.date(2024, 1, 1)}, None]),
        "none": pa.array([None, None]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")

    first, second = read_records(str(tmp_path / "a.parquet"))

    assert first.values == {
        "text": "a",
        "word": "x",
        "score": None,
        "half": 1.5,
        "count": 1,
        "flag": True,
        "price": "1.10",
        "day": "2024-02-29",
        "time": "01:02:03",
        "naive": "2024-01-02T03:04:05",
        "nanos": "2023-11-14T22:13:20.123456789",
        "zoned": "2024-01-02T02:00:00Z",
        "nested": {"a": [1.0, None], "d": "2024-01-01"},
        "none": None,
    }
    assert second.line == 2
    assert {k: v for k, v in second.values.items() if v is not None} == {"word": "x", "score": 0.5}


def test_parquet_is_read_across_row_groups_in_order(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": [str(n) for n in range(20_000)]}), tmp_path / "a.parquet", 3000
    )

    records = list(read_records(str(tmp_path / "a.parquet")))

    assert [(r.line, r.values["text"]) for r in records] == [(n + 1, str(n)) for n in range(20_000)]


@pytest.mark.parametrize(
    ("column", "kind"),
    [(pa.array([b"\x00\xff"]), "bytes"), (pa.array([dt.timedelta(1)]), "timedelta")],
)
def test_a_parquet_column_without_a_form_in_json_is_named(
    tmp_path: Path, column: pa.Array, kind: str
) -> None:
    pq.write_table(pa.table({"blob": column}), tmp_path / "a.parquet")

    with pytest.raises(InputError, match=f"a.parquet: column 'blob': values of type {kind}"):
        values(str(tmp_path / "a.parquet"))


def test_parquet_columns_of_the_same_name_are_an_error(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "a.parquet")

    with pytest.raises(InputError, match="columns of the same name: a"):
        values(str(tmp_path / "a.parquet"))


def test_what_is_no_parquet_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("text")

    with pytest.raises(InputError, match=r"a\.parquet: no Parquet that can be read: ") as raised:
        values(str(tmp_path / "a.parquet"))

    assert "\n" not in str(raised.value)
