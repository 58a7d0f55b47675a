"""``verify`` believes nothing: rows lost, doubled or made up are found, and so is a wrong sum."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flavor.errors import InputError
from flavor.types import Task
from producer.commands.verify import _lines
from producer.verify import Verification, verify_job
from tests.unit.worker.fakes import FolderRuns
from tests.unit.worker.making import JOB, make_outcome, make_spec
from worker.inputs import InputWriter
from worker.jobs import Outcome
from worker.parts import part_name, read_outcomes, write_part
from worker.totals import Totals

ROWS, SIZE = 5, 2


class VerifiableRuns(FolderRuns):
    """A run of five rows in three batches, in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.spec_ = make_spec(rows=ROWS, batches=3, batch_size=SIZE)
        self.run = SimpleNamespace(
            info=SimpleNamespace(status="FINISHED"), data=SimpleNamespace(metrics={})
        )

    def spec(self, job_id: str) -> Any:
        return self.spec_

    def get(self, job_id: str) -> Any:
        return self.run


@pytest.fixture
def runs(tmp_path: Path) -> VerifiableRuns:
    """A job that kept its promises."""
    made = VerifiableRuns(tmp_path / "run")
    totals = Totals()
    with InputWriter(tmp_path) as writer:
        for batch, indexes in enumerate([[0, 1], [2, 3], [4]]):
            outcomes = [make_outcome(index, cost_usd=0.01) for index in indexes]
            _write(made, tmp_path, batch=batch, outcomes=outcomes)
            totals.add_outcomes(outcomes)
            writer.write(
                first_index=indexes[0],
                row_ids=[outcome.row_id for outcome in outcomes],
                sources=["a.csv"] * len(indexes),
                lines=indexes,
                rows=[b"{}"] * len(indexes),
            )
    for file in writer.files:
        made.log_file(JOB, file, "input")
    made.run.data.metrics = {
        **{f"rows.{verdict.value}": count for verdict, count in totals.rows.items()},
        **{f"tokens.{name}": count for name, count in totals.tokens.items()},
        "cost.usd": totals.cost_pico / 1e12,
        "requests.sent": 9,
        "rows.in_doubt": 2,
    }
    return made


def _write(runs: VerifiableRuns, folder: Path, *, batch: int, outcomes: Sequence[Outcome]) -> None:
    path = folder / part_name(batch)
    write_part(path, outcomes, Task.CHAT)
    runs.log_file(JOB, path, "outputs")


def _verify(runs: VerifiableRuns) -> Verification:
    return verify_job(runs.as_runs, JOB)


def test_a_job_that_kept_its_promises_is_verified(runs: VerifiableRuns) -> None:
    found = _verify(runs)

    assert found.holds
    assert (found.rows, found.outcomes) == (ROWS, ROWS)
    assert (found.requests_sent, found.rows_in_doubt) == (9, 2)


@pytest.mark.parametrize(
    ("in_doubt", "said"),
    [
        (0.0, "9 sent, no row paid twice"),
        (1234.0, "9 sent, between 0 and 1,234 rows paid twice"),
        (None, "9 sent, and the run does not say how many rows may have been paid twice"),
    ],
)
def test_how_many_rows_were_paid_twice_is_said_as_far_as_it_is_known(
    runs: VerifiableRuns, in_doubt: float | None, said: str
) -> None:
    del runs.run.data.metrics["rows.in_doubt"]
    if in_doubt is not None:
        runs.run.data.metrics["rows.in_doubt"] = in_doubt

    assert f"requests  {said}" in _lines(_verify(runs))


def test_a_row_without_an_outcome_is_named(runs: VerifiableRuns, tmp_path: Path) -> None:
    _write(runs, tmp_path, batch=1, outcomes=[make_outcome(3)])

    found = _verify(runs)

    assert not found.holds
    assert (found.without_outcome.count, found.without_outcome.row_ids) == (1, ["r2"])


def test_a_batch_without_a_part_is_found(runs: VerifiableRuns, tmp_path: Path) -> None:
    (tmp_path / "run" / "outputs" / part_name(2)).unlink()

    assert _verify(runs).without_outcome.row_ids == ["r4"]


def test_a_second_outcome_of_a_row_is_named(runs: VerifiableRuns, tmp_path: Path) -> None:
    path = tmp_path / "run" / "outputs" / part_name(0)
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(1, 1)]), path)

    found = _verify(runs)

    assert not found.holds
    assert (found.with_several.count, found.with_several.row_ids) == (1, ["r1"])


def test_an_outcome_of_no_row_is_named(runs: VerifiableRuns, tmp_path: Path) -> None:
    outcomes = read_outcomes(tmp_path / "run" / "outputs" / part_name(0))
    _write(runs, tmp_path, batch=0, outcomes=[*outcomes, make_outcome(9)])

    found = _verify(runs)

    assert not found.holds
    assert found.unknown.row_ids == ["r9"]


@pytest.mark.parametrize("name", ["rows.succeeded", "tokens.total", "cost.usd"])
def test_a_total_that_is_not_the_sum_is_named(runs: VerifiableRuns, name: str) -> None:
    runs.run.data.metrics[name] += 0.001

    found = _verify(runs)

    assert not found.holds
    assert list(found.wrong_totals) == [name]


def test_without_logged_input_rows_are_known_by_their_place(
    runs: VerifiableRuns, tmp_path: Path
) -> None:
    runs.spec_ = make_spec(rows=ROWS, batches=3, batch_size=SIZE, is_input_logged=False)
    assert _verify(runs).holds

    _write(runs, tmp_path, batch=1, outcomes=[make_outcome(2)])

    assert _verify(runs).without_outcome.row_ids == ["row 3"]


def test_a_running_job_is_not_judged(runs: VerifiableRuns) -> None:
    runs.run.info.status = "RUNNING"

    with pytest.raises(InputError, match="has not ended"):
        _verify(runs)
