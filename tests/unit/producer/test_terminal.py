"""What people read of a job, whatever stands in its names, its reasons and its answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.commands.jobs import _table
from producer.local import LocalResult
from producer.progress import summary_table
from producer.summary import print_demo
from producer.terminal import console
from worker.jobs import JobState
from worker.status import JobStatus

ODD = "a [/INST] [bold]b[/] :smile: [link=x]"
STATUS = JobStatus(
    job_id="j1", name=ODD, state=JobState.PAUSED, rows_total=1, rows={}, reason=f"refused: {ODD}"
)


def test_texts_that_look_like_markup_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """rich raised an error at the first of them, after the job was paid for."""
    row: dict[str, object] = {"row": "r1", "text": ODD, "answer": ODD, "tokens": 3}

    print_demo(
        LocalResult(
            status=STATUS,
            tracking_uri=f"sqlite:///{tmp_path}/[/odd]/mlflow.db",
            run_url=None,
            experiment_id="1",
            preview=[row],
        )
    )

    out, err = capsys.readouterr()
    assert out == "j1\n"
    assert f"r1   {ODD}  {ODD}  3" in err
    assert f"name      {ODD}" in err
    assert f"paused (refused: {ODD})" in err
    assert "/[/odd]/mlflow.db" in err


def test_the_list_of_jobs_shows_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console().print(_table([STATUS], width=200))

    assert ODD in capsys.readouterr().out


def test_in_a_pipe_a_long_reason_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "the endpoint refuses every request: " + "x" * 120
    status = JobStatus(
        job_id="j1", name="n", state=JobState.PAUSED, rows_total=1, rows={}, reason=reason
    )

    console(stderr=True).print(summary_table(status))

    assert f"paused ({reason})" in capsys.readouterr().err
