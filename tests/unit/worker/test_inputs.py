"""Rows of an input's parts, found by their ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from worker.inputs import InputWriter, find_rows


class Asked(set[str]):
    """Ids that may be asked for, never listed: there can be as many as a job has rows."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("all ids were listed")


def test_rows_are_found_without_listing_the_ids_for_each_row_group(tmp_path: Path) -> None:
    """It took minutes for a pilot of a million rows: each of 5,000 row groups saw all its ids."""
    with InputWriter(tmp_path) as writer:
        for first in (0, 2, 4):
            writer.write(
                first_index=first,
                row_ids=[f"r{first}", f"r{first + 1}"],
                sources=["a.csv"] * 2,
                lines=[first, first + 1],
                rows=[b'{"text":"a"}', b'{"text":"b"}'],
            )

    found = list(find_rows(writer.files[0], Asked({"r1", "r4", "r5", "r9"})))

    assert [(row_group, row.row_id, row.values["text"]) for row_group, row in found] == [
        (0, "r1", "b"),
        (2, "r4", "a"),
        (2, "r5", "b"),
    ]
