"""What is learnt of an input's columns while its rows go by."""

from __future__ import annotations

from typing import Any

import pytest

from worker.columns import MAX_COLUMNS, Columns, Kind


def learnt(*rows: dict[str, Any]) -> Columns:
    columns = Columns()
    for row in rows:
        columns.add(row)
    return columns


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "b"], Kind.STRING),
        ([1, -1], Kind.LONG),
        ([1, 0.5], Kind.DOUBLE),
        ([True, False], Kind.BOOLEAN),
        ([True, 1], Kind.ANY),
        ([1, "a"], Kind.ANY),
        ([[1]], Kind.ANY),
        ([{"a": 1}], Kind.ANY),
        ([2**63 - 1], Kind.LONG),
        ([2**63], Kind.ANY),
        ([None, 2], Kind.LONG),
        ([None, None], Kind.STRING),
    ],
)
def test_a_columns_kind_fits_all_of_its_values(values: list[Any], kind: Kind) -> None:
    assert learnt(*({"c": value} for value in values)).kinds == {"c": kind}


def test_columns_keep_the_order_in_which_they_came() -> None:
    assert list(learnt({"b": 1, "a": 1}, {"a": 1, "c": 1}).kinds) == ["b", "a", "c"]


def test_what_is_null_or_missing_in_any_row_is_optional() -> None:
    columns = learnt({"a": 1, "b": 1, "c": 1}, {"a": 1, "b": None}, {"a": 2, "b": 1, "d": 1})

    assert columns.optional == {"b", "c", "d"}


def test_too_many_names_are_no_columns() -> None:
    columns = learnt(*({f"c{n}": n} for n in range(MAX_COLUMNS + 1)))

    assert columns.is_overfull
    assert columns.kinds == {}
