"""A pilot's outcomes find their places in the new job, or none of them does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flavor.errors import InputError
from flavor.model import ModelSpec
from flavor.types import Row, Task
from producer.formats import Record
from producer.intake import Asked, SubmitOptions
from producer.pilot import Carried, Pilot, _log, _read, carry, same_model
from producer.source import SourceRow
from producer.spool import BatchOptions, Spool
from tests.unit.producer.running import FinishedRun
from tests.unit.worker.fakes import FolderRuns
from tests.unit.worker.making import make_dead, make_outcome, make_spec
from worker.codec import encode_rows
from worker.jobs import Cap, Limits, Outcome, Verdict
from worker.parts import read_outcomes

SHA256 = "0" * 64
Carry = Callable[..., Carried]


def _pilot(*outcomes: Outcome, inputs: Any = None, **changes: Any) -> Pilot:
    return Pilot(
        spec=make_spec(job_id="p1", **changes),
        outcomes={outcome.row_id: outcome for outcome in outcomes},
        inputs=inputs,
    )


@pytest.fixture
def carried(tmp_path: Path) -> Carry:
    """Carry a pilot's outcomes into a job of seven rows, two a batch."""
    rows = [
        SourceRow(
            Row(row_id=f"r{index}", index=index, values={"text": f"text {index}"}),
            Record("rows.jsonl", index + 1, {"text": f"text {index}"}),
        )
        for index in range(7)
    ]

    def carry_into(pilot: Pilot, input_sha256: str = SHA256) -> Carried:
        options = BatchOptions(batch_size=2)
        with Spool(encode_rows, options=options, folder=tmp_path) as spool:
            return carry(pilot, spool.write(rows), input_sha256=input_sha256)

    return carry_into


def test_outcomes_find_the_places_of_their_rows(carried: Carry) -> None:
    """The pilot had its rows at the places 0 and 1."""
    first = make_outcome(0, row_id="r3", cost_usd=0.25)
    second = make_outcome(1, row_id="r6", cost_usd=0.5)

    found = carried(_pilot(first, second))

    places = {
        batch: [(outcome.row_id, outcome.index) for outcome in outcomes]
        for batch, outcomes in found.by_batch.items()
    }
    assert places == {1: [("r3", 3)], 3: [("r6", 6)]}
    assert found.totals.counts()["rows_succeeded"] == 2
    assert found.tags == {
        "batch.pilot_of": "p1",
        "batch.pilot_rows": "2",
        "batch.pilot_tokens": "30",
        "batch.pilot_cost_usd": "0.750000",
    }


def test_rows_that_the_job_does_not_have_are_left_out(carried: Carry) -> None:
    found = carried(_pilot(make_outcome(0, row_id="r3"), make_outcome(1, row_id="r9")))

    assert list(found.by_batch) == [1]


def test_a_pilot_without_any_of_the_rows_is_refused(carried: Carry) -> None:
    with pytest.raises(InputError, match="none of the rows that pilot p1 has paid for"):
        carried(_pilot(make_outcome(0, row_id="r9")))


@pytest.mark.parametrize("sha256", ["1" * 64, ""])
def test_another_input_is_refused(carried: Carry, sha256: str) -> None:
    with pytest.raises(InputError, match="differs in its input's SHA-256: 000000000000, here"):
        carried(_pilot(make_outcome(0)), sha256)


def test_two_inputs_of_unknown_bytes_are_not_taken_for_one(carried: Carry) -> None:
    """A limit on stdin leaves the SHA-256 of both unknown."""
    with pytest.raises(InputError, match="differs in its input's SHA-256"):
        carried(_pilot(make_outcome(0), input_sha256=""), "")


def test_rows_that_were_read_in_another_way_are_refused(carried: Carry) -> None:
    pilot = _pilot(make_outcome(0), inputs={"r0": {"text": '"text 0"'}})

    with pytest.raises(InputError, match="row r0 is another than in pilot p1"):
        carried(pilot)


def test_equal_rows_are_taken(carried: Carry) -> None:
    pilot = _pilot(make_outcome(0), inputs={"r0": {"text": "text 0"}})

    assert carried(pilot).by_batch[0][0].row_id == "r0"


def test_the_new_run_holds_the_outcomes_as_rescued_ones(carried: Carry, tmp_path: Path) -> None:
    """That is where ``resume`` looks when Redis is gone."""
    runs = FolderRuns(tmp_path / "run")
    found = carried(_pilot(make_outcome(0, row_id="r3")))

    _log(runs.as_runs, make_spec(), found)

    (path,) = (tmp_path / "run" / "rescued").iterdir()
    assert path.name == "batch-000001-pilot.parquet"
    assert [(o.row_id, o.index) for o in read_outcomes(path)] == [("r3", 3)]


def test_what_another_attempt_could_change_is_sent_again(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path, [{"text": "a"}, {"text": "b"}, {"text": "c"}, {"text": "d"}])
    run.publish(0, make_outcome(0), make_dead(1, Verdict.EXHAUSTED))
    run.publish(1, make_dead(2), make_outcome(3, verdict=Verdict.CANCELLED, usage=None))

    pilot = _read(run.runs.as_runs, run.spec)

    assert set(pilot.outcomes) == {"r0", "r2"}
    assert pilot.inputs is not None
    assert pilot.inputs["r2"] == {"text": "c"}


def test_a_pilot_without_logged_input_is_known_by_its_ids(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path, [{"text": "a"}], is_input_logged=False)
    run.publish(0, make_outcome(0))

    pilot = _read(run.runs.as_runs, run.spec)

    assert (set(pilot.outcomes), pilot.inputs) == ({"r0"}, None)


def _asked(**options: Any) -> Asked:
    return Asked(
        options=SubmitOptions(
            input_path="reviews.csv", model="models:/sentiment@champion", **options
        ),
        model=ModelSpec(
            uri="models:/sentiment@champion",
            resolved_uri="models:/sentiment/3",
            task=Task.CHAT,
            openai_model="gpt-4o-mini",
        ),
        batch_size=200,
        price=None,
        limits=Limits(),
        cap=Cap(),
    )


def test_the_same_model_and_parameters_are_accepted() -> None:
    asked = _asked(params={"temperature": 0}, columns={"text": "body"}, id_column="id")
    pilot = _pilot(params={"temperature": 0}, columns={"text": "body"}, id_column="id")

    assert same_model(pilot, asked) is asked


@pytest.mark.parametrize(
    ("of_pilot", "options", "said"),
    [
        ({"model_uri": "models:/sentiment/2"}, {}, "model: models:/sentiment/2, here"),
        ({}, {"params": {"model": "gpt-4o"}}, "OpenAI model: gpt-4o-mini, here gpt-4o"),
        ({"params": {"n": 2}}, {}, "parameters: {'n': 2}, here none"),
        ({}, {"columns": {"text": "body"}}, "columns: none, here {'text': 'body'}"),
        ({"id_column": "id"}, {}, "id column: id, here none"),
    ],
)
def test_whatever_would_be_sent_differently_is_refused(
    of_pilot: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        same_model(_pilot(**of_pilot), _asked(**options))

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
