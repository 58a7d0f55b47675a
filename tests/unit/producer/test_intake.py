"""What a library's caller may ask for: the same as the command line's user, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from flavor.errors import InputError
from producer import submit
from producer.intake import SubmitOptions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("limit", "rpm", "tpm", "max_total_tokens", "batch_size")
          for value in (0, -1, "5", 1.5, True)],
        ("batch_size", 100_001),
        ("priority", 10),
        ("max_cost", 0),
        ("max_cost", -1.0),
        ("trace", 5),
        ("on_null", "ignore"),
    ],
)  # fmt: skip
def test_an_option_out_of_its_range_is_refused(name: str, value: Any) -> None:
    """A limit of -1 was no limit, a cap of 0 no cap, and any odd on_null was skip."""
    with pytest.raises(InputError, match=name):
        SubmitOptions(input_path="rows.csv", **{name: value})


def test_the_most_and_the_least_are_taken() -> None:
    SubmitOptions(
        input_path="rows.csv", limit=1, batch_size=100_000, priority=0, max_cost=9000, trace=1
    )


def test_an_unknown_task_is_named_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match=r"chat\.completions, .*: 'chat'"):
        submit([{"text": "x"}], openai_model="gpt-4o-mini", task="chat")  # type: ignore[arg-type]
