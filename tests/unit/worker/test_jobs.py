"""The contract between producer and worker: a job's spec, and its closed sets of words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flavor.errors import InputError
from flavor.prices import Price
from flavor.types import Task
from tests.unit.worker.making import make_spec
from worker.jobs import JobSpec, JobState, Limits, Verdict


def test_a_spec_survives() -> None:
    spec = make_spec(
        task=Task.EMBEDDINGS,
        params={"temperature": 0.5, "stop": ["é"]},
        columns={"text": "Bewertung"},
        price=Price(input_usd_per_token=1e-7, output_usd_per_token=2e-7),
        limits=Limits(requests_per_min=500),
        is_input_logged=False,
    )

    assert JobSpec.from_json(spec.to_json()) == spec
    assert JobSpec.from_json(spec.to_json().encode()) == spec


def _changed(**changes: Any) -> str:
    return json.dumps({**json.loads(make_spec().to_json()), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"text"',
        "{}",
        "{broken",
        b"\xff\xfe\x00",
        _changed(task="telepathy"),
        _changed(price=5),
        _changed(price={"per_moon": 1}),
        _changed(limits=None),
        _changed(limits={"rows_per_day": 3}),
    ],
)
def test_a_text_that_is_no_spec_is_an_input_error(text: str | bytes) -> None:
    with pytest.raises(InputError, match="no job spec"):
        JobSpec.from_json(text)


def test_a_spec_of_a_later_version_names_its_unknown_field() -> None:
    with pytest.raises(InputError, match="telepathy_level"):
        JobSpec.from_json(_changed(telepathy_level=3))


def test_what_an_older_version_did_not_write_gets_its_default() -> None:
    values = json.loads(make_spec().to_json())
    for name in ("price", "limits", "is_input_logged"):
        del values[name]

    assert JobSpec.from_json(json.dumps(values)) == make_spec()


def test_final_states_are_those_after_which_nothing_happens() -> None:
    final = {state for state in JobState if state.is_final}

    assert final == {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}


def test_dead_rows_are_those_that_can_be_retried() -> None:
    assert {v for v in Verdict if v.is_dead} == {Verdict.REJECTED, Verdict.EXHAUSTED}
