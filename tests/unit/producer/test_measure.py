"""A pilot's rows are drawn from all rows, keep their ids, and speak for the others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flavor.errors import InputError
from flavor.model import ModelSpec
from flavor.types import Task, Usage
from producer.estimate import Measured
from producer.intake import Asked, SubmitOptions, open_rows, read_asked
from producer.measure import _Draw, _measured, _outcomes
from tests.unit.producer.running import FinishedRun
from tests.unit.worker.making import JOB, make_dead, make_outcome
from worker.jobs import JobState, Limits
from worker.settings import Settings

ROWS = 40


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """A job over forty rows, the lines of a text file."""
    path = tmp_path / "rows.txt"
    path.write_text("".join(f"row {number}\n" for number in range(ROWS)))
    options = SubmitOptions(
        input_path=str(path), prompt="Say: {text}", openai_model="gpt-4o-mini", rpm=60
    )
    return read_asked(Settings(), options)


def _draw(asked: Asked, size: int) -> tuple[_Draw, list[Any]]:
    draw = _Draw(size)
    _, rows = open_rows(asked)
    return draw, list(draw(asked, rows))


def test_drawn_rows_keep_their_ids_and_get_places_of_their_own(asked: Asked) -> None:
    draw, drawn = _draw(asked, 5)

    assert [found.row.index for found in drawn] == [0, 1, 2, 3, 4]
    ids = [int(found.row.row_id) for found in drawn]
    assert ids == sorted(set(ids))
    assert [found.row.values["text"] for found in drawn] == [f"row {number}" for number in ids]
    assert [found.record.line for found in drawn] == [number + 1 for number in ids]
    assert draw.estimate.rows == ROWS
    assert len(draw.counted) == 5


def test_a_pilot_of_more_rows_than_there_are_takes_all(asked: Asked) -> None:
    draw, drawn = _draw(asked, 100)

    assert [found.row.row_id for found in drawn] == [str(number) for number in range(ROWS)]
    assert draw.counted_total == sum(draw.counted)


def test_an_id_that_stands_twice_ends_a_pilot_before_it_sends(tmp_path: Path) -> None:
    """Also where neither of the two rows is drawn: submit would refuse the file."""
    path = tmp_path / "rows.csv"
    path.write_text("id,text\n" + "".join(f"{number % ROWS},x\n" for number in range(ROWS + 1)))
    options = SubmitOptions(
        input_path=str(path), prompt="Say: {text}", openai_model="gpt-4o-mini", id_column="id"
    )

    with pytest.raises(InputError, match=r"rows.csv:42: the id '0' stands at .*rows.csv:2 already"):
        _draw(read_asked(Settings(), options), 2)


def test_a_model_that_tells_no_usage_cannot_be_measured(asked: Asked) -> None:
    pyfunc = ModelSpec(uri="m", resolved_uri="m", task=Task.PYFUNC, variables=("text",))

    with pytest.raises(InputError, match="--pilot measures tokens, and this model tells none"):
        _draw(dataclasses.replace(asked, model=pyfunc), 5)


def test_the_pilots_outcomes_speak_for_all_rows(asked: Asked, tmp_path: Path) -> None:
    """A dead row counts with nothing: half of all rows will cost nothing."""
    draw, _ = _draw(asked, 4)
    run = FinishedRun(tmp_path, [{"text": "x"}] * 4)
    usage = Usage(prompt_tokens=10, completion_tokens=6, total_tokens=16)
    run.publish(0, make_outcome(0, usage=usage, cost_usd=0.5), make_dead(1))
    run.publish(1, make_outcome(2, usage=usage, cost_usd=0.5), make_dead(3))

    found = _measured(_completed(), _outcomes(run.runs.as_runs, JOB), draw=draw)

    assert found.total is not None
    assert found.cost_usd is not None
    assert found.total.estimate == ROWS * 8
    assert 32 <= found.total.low < ROWS * 8 < found.total.high
    assert found.cost_usd.estimate == ROWS * 0.25
    assert found.duration is not None
    assert found.duration.seconds.low == ROWS


def test_answers_without_usage_say_nothing(asked: Asked, tmp_path: Path) -> None:
    draw, _ = _draw(asked, 2)
    run = FinishedRun(tmp_path, [{"text": "x"}] * 2)
    run.publish(0, make_outcome(0, usage=None), make_outcome(1, usage=None))

    found = _measured(_completed(), _outcomes(run.runs.as_runs, JOB), draw=draw)

    assert (found.prompt, found.total, found.cost_usd) == (None, None, None)


def _completed() -> Measured:
    limits = Limits(requests_per_min=60)
    return Measured(job_id=JOB, state=JobState.COMPLETED, rows=4, limits=limits)
