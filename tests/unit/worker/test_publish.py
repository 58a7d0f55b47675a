"""What goes into the run: parts while the job runs, and the whole story at its end."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flavor.errors import TrackingError
from flavor.types import Task
from tests.unit.worker.fakes import FolderRuns
from tests.unit.worker.making import JOB, make_dead, make_outcome, make_spec
from worker.histogram import place_of
from worker.inputs import InputWriter, to_json
from worker.jobs import JobSpec, JobState, Outcome, Verdict
from worker.parts import read_outcomes, read_part
from worker.publish import (
    MAPPED_PARTS,
    PREVIEW_ROWS,
    REPORT_FILE,
    THROUGHPUT_FILE,
    finalize,
    metric_step,
    progress_metrics,
    publish_part,
)
from worker.reports import Pace
from worker.status import JobStatus, Requests, Tokens

ROWS_PER_BATCH = 3


class Run:
    """A run in a folder, with the input of some batches."""

    def __init__(self, folder: Path, *, batches: int = 2, **changes: Any) -> None:
        self.runs = FolderRuns(folder)
        rows = batches * ROWS_PER_BATCH
        self.spec: JobSpec = make_spec(rows=rows, batches=batches, **changes)
        (folder / "input").mkdir()
        with InputWriter(folder / "input") as writer:
            for number in range(batches):
                first = number * ROWS_PER_BATCH
                indexes = range(first, first + ROWS_PER_BATCH)
                writer.write(
                    first_index=first,
                    row_ids=[f"r{index}" for index in indexes],
                    sources=["rows.csv"] * ROWS_PER_BATCH,
                    lines=list(indexes),
                    rows=[to_json({"text": f"text {index}", "extra": index}) for index in indexes],
                )

    def publish(self, batch: int, *outcomes: Outcome) -> None:
        publish_part(self.runs.as_runs, self.spec, batch=str(batch), outcomes=outcomes)

    def finalize(self, ending: JobState = JobState.COMPLETED) -> JobState:
        state, _ = finalize(self.runs.as_runs, self.spec, status=_status(), ending=ending)
        return state

    def read(self, name: str) -> str:
        return (self.runs.folder / name).read_text("utf-8")

    @property
    def files(self) -> dict[str, bytes]:
        folder = self.runs.folder
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _status(**changes: Any) -> JobStatus:
    values: dict[str, Any] = {
        "job_id": JOB,
        "name": "reviews",
        "state": JobState.FINALIZING,
        "rows_total": 6,
        "rows": dict.fromkeys(Verdict, 0),
        "requests": Requests(sent=9, retried=2, throttled=1, in_flight=3),
        "started_ms": int(time.time() * 1000) - 10_000,
    }
    return JobStatus(**{**values, **changes})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def _good(*indexes: int) -> list[Outcome]:
    return [make_outcome(index, latency_s=0.5) for index in indexes]


def test_a_part_stands_in_the_run_and_may_be_written_again(run: Run) -> None:
    run.publish(0, *_good(2, 0, 1))
    before = run.files

    run.publish(0, *_good(0, 1, 2))

    assert run.files == before
    assert read_outcomes(run.runs.folder / "outputs/batch-000000.parquet") == _good(0, 1, 2)


def test_a_run_away_is_a_tracking_error(run: Run) -> None:
    run.runs.failures = 1

    with pytest.raises(TrackingError):
        run.publish(0, *_good(0, 1, 2))


def test_the_run_ends_with_exact_totals(run: Run) -> None:
    run.publish(0, *_good(0, 1, 2))
    run.publish(1, *_good(3, 4), make_dead(5))

    state = run.finalize()

    metrics = run.runs.metrics
    assert state is JobState.COMPLETED
    assert run.runs.statuses == ["FINISHED"]
    assert run.runs.tags["batch.state"] == "completed"
    assert (metrics["rows.succeeded"], metrics["rows.rejected"]) == (5, 1)
    assert metrics["tokens.total"] == 75
    assert (metrics["requests.sent"], metrics["requests.throttled"]) == (9, 1)
    assert metrics["throughput.rows_per_s"] == pytest.approx(0.6, rel=0.1)
    assert "cost.usd" not in metrics


def test_dead_rows_are_listed_with_their_input_and_error(run: Run) -> None:
    run.publish(0, *_good(0), make_dead(1), *_good(2))
    run.publish(1, *_good(3, 4), make_dead(5, Verdict.EXHAUSTED))

    run.finalize()

    lines = [json.loads(line) for line in run.read("failed.jsonl").splitlines()]
    assert [line["row_id"] for line in lines] == ["r1", "r5"]
    assert lines[0] == {
        "row_id": "r1",
        "index": 1,
        "verdict": "rejected",
        "attempts": 1,
        "input": {"text": "text 1", "extra": 1},
        "error": {"type": "BadRequest", "status": 400, "code": "bad", "message": "refused"},
    }


def test_without_dead_rows_there_is_no_list_of_them(run: Run) -> None:
    run.publish(0, *_good(0, 1, 2))
    run.publish(1, *_good(3, 4, 5))

    run.finalize()

    assert "failed.jsonl" not in run.files


def test_the_preview_is_a_table_with_the_inputs_beside(run: Run) -> None:
    run.publish(0, *_good(0, 1), make_dead(2))
    run.publish(1, *_good(3, 4, 5))

    run.finalize()

    preview = json.loads(run.read("preview.json"))
    assert preview["columns"][:3] == ["row_id", "input", "output"]
    assert len(preview["data"]) == 6
    assert preview["data"][0] == [
        "r0", {"text": "text 0", "extra": 0}, "answer 0", "succeeded", 15, None,
    ]  # fmt: skip
    assert preview["data"][2][-1] == "refused"
    assert json.loads(run.runs.tags["mlflow.loggedArtifacts"])[0]["path"] == "preview.json"


def test_a_preview_shows_the_head_of_a_vector_and_of_a_job(tmp_path: Path) -> None:
    run = Run(tmp_path, batches=40, task=Task.EMBEDDINGS)
    vector = np.arange(1536, dtype="<f4").tobytes()
    for number in range(40):
        first = number * ROWS_PER_BATCH
        run.publish(number, *(make_outcome(first + n, output=vector) for n in range(3)))

    run.finalize()

    data = json.loads(run.read("preview.json"))["data"]
    assert [row[0] for row in data] == [f"r{index}" for index in range(PREVIEW_ROWS)]
    assert data[0][2] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


def test_of_a_large_job_only_the_vectors_that_are_shown_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preview's first 100 rows, and one part in ten for the map; all rows count."""
    run = Run(tmp_path, batches=200, task=Task.EMBEDDINGS)
    for batch in range(200):
        indexes = range(batch * ROWS_PER_BATCH, (batch + 1) * ROWS_PER_BATCH)
        vectors = [np.array([n, 1, n % 7], "<f4").tobytes() for n in indexes]
        run.publish(
            batch,
            *(make_outcome(n, output=v) for n, v in zip(indexes, vectors, strict=True)),
        )
    read: list[bool] = []

    def watched(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
        part = read_part(path, columns)
        read.append("output" in part.column_names)
        return part

    monkeypatch.setattr("worker.run_files.read_part", watched)

    assert run.finalize() is JobState.COMPLETED

    assert MAPPED_PARTS <= sum(read) <= MAPPED_PARTS + 34 + 9  # 34 of the preview, 9 read ahead
    assert len(read) == 200
    shown = [row[2] for row in json.loads(run.read("preview.json"))["data"]]
    assert shown == [[n, 1, n % 7] for n in range(PREVIEW_ROWS)]
    assert " of 600 rows, on two principal components" in run.read(REPORT_FILE)
    assert run.runs.metrics["rows.succeeded"] == 600


def test_an_input_that_was_not_logged_is_left_out(tmp_path: Path) -> None:
    run = Run(tmp_path, batches=1, is_input_logged=False)
    run.publish(0, *_good(0, 1), make_dead(2))

    run.finalize()

    assert json.loads(run.read("failed.jsonl"))["input"] is None
    assert json.loads(run.read("preview.json"))["data"][0][1] is None


@pytest.mark.parametrize(
    ("ending", "status"), [(JobState.COMPLETED, "FINISHED"), (JobState.CANCELLED, "KILLED")]
)
def test_the_run_ends_as_the_job_does(run: Run, ending: JobState, status: str) -> None:
    run.publish(0, *_good(0, 1, 2))
    run.publish(1, *(make_outcome(n, verdict=Verdict.CANCELLED, usage=None) for n in (3, 4, 5)))

    assert run.finalize(ending) is ending

    assert run.runs.statuses == [status]


@pytest.mark.parametrize("ending", [JobState.COMPLETED, JobState.CANCELLED])
def test_a_run_that_lacks_outcomes_has_failed_whatever_was_asked(
    run: Run, ending: JobState
) -> None:
    run.publish(0, *_good(0, 1, 2))

    state = run.finalize(ending)

    assert state is JobState.FAILED
    assert run.runs.statuses == ["FAILED"]
    assert run.runs.metrics["rows.succeeded"] == 3


def test_finalizing_again_gives_the_same(run: Run) -> None:
    """A finalizer that died is replaced by another, which begins anew."""
    run.publish(0, *_good(0, 1, 2))
    run.publish(1, *_good(3, 4), make_dead(5))
    run.finalize()
    files, metrics, tags = run.files, dict(run.runs.metrics), dict(run.runs.tags)

    run.finalize()

    moving = "throughput.rows_per_s"
    again = run.files
    for tells_the_time in (REPORT_FILE, THROUGHPUT_FILE):
        assert again.pop(tells_the_time)
        del files[tells_the_time]
    assert (again, run.runs.tags) == (files, tags)
    assert {**run.runs.metrics, moving: 0} == {**metrics, moving: 0}


def test_the_run_has_a_report_and_its_throughput_as_a_picture(run: Run) -> None:
    run.publish(0, *_good(0, 1, 2))
    run.publish(1, *_good(3, 4), make_dead(5))

    run.finalize()

    assert "BadRequest · HTTP 400 · bad" in run.read(REPORT_FILE)
    assert "text 5" in run.read(REPORT_FILE)
    assert run.files[THROUGHPUT_FILE].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("error", "event", "has_report"),
    [(TrackingError("away"), "series_unreadable", True), (ValueError("?"), "report_failed", False)],
)
def test_a_report_that_cannot_be_made_fails_no_job(
    run: Run, caplog: pytest.LogCaptureFixture, error: Exception, event: str, has_report: bool
) -> None:
    run.publish(0, *_good(0, 1, 2))
    run.publish(1, *_good(3, 4, 5))
    run.runs.history_error = error

    state = run.finalize()

    assert state is JobState.COMPLETED
    assert run.runs.statuses == ["FINISHED"]
    assert [record.__dict__["event"] for record in caplog.records] == [event]
    assert (REPORT_FILE in run.files) is has_report


def test_a_lone_surrogate_in_a_preview_does_not_keep_a_job_from_ending(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.publish(0, *_good(0, 1), make_outcome(2, output="bad \ud800 end"))
    run.publish(1, *_good(3, 4, 5))

    assert run.finalize() is JobState.COMPLETED


def test_totals_stand_above_every_sample_also_after_a_resume() -> None:
    """MLflow shows a metric's highest step; a resumed job's clock must not begin anew."""
    an_hour_ago = datetime.now(tz=timezone.utc) - timedelta(hours=1)
    spec = dataclasses.replace(make_spec(), created_at=an_hour_ago.isoformat(timespec="seconds"))

    assert metric_step(spec) >= 3600


def test_a_model_that_tells_no_usage_has_no_token_points() -> None:
    values = progress_metrics(_status(has_usage=False))

    assert not [name for name in values if name.startswith("tokens.")]


def test_a_running_jobs_figures_are_metric_points() -> None:
    rows = {**dict.fromkeys(Verdict, 0), Verdict.SUCCEEDED: 4}
    pace = Pace(rows_per_s=2.5, latencies={place_of(0.5): 9, place_of(4.0): 1})
    status = _status(rows=rows, tokens=Tokens(total=60), cost_usd=0.25, pace=pace)

    values = progress_metrics(status)

    assert values["rows.succeeded"] == 4
    assert values["tokens.total"] == 60
    assert values["cost.usd"] == 0.25
    assert values["requests.in_flight"] == 3
    assert values["throughput.rows_per_s"] == 2.5  # lately, not since the start
    assert values["latency.p50_s"] == pytest.approx(0.5, rel=0.01)
    assert values["latency.p99_s"] == pytest.approx(4.0, rel=0.01)
    assert "cost.usd" not in progress_metrics(_status())
