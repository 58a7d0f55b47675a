"""What goes into the run: a batch's part as soon as it is done, and at the end the whole story.

Blocking, called in threads. Everything here may be repeated: a part is a pure function of its
outcomes, and the finalizer reads nothing but the run (and Redis for what no outcome can tell).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flavor.errors import InputError, TrackingError
from flavor.types import Json, Task
from worker.digest import Digest
from worker.histogram import percentiles
from worker.jobs import JobSpec, JobState, Outcome, Verdict
from worker.parts import part_name, part_schema, write_part
from worker.report import Story, make_report
from worker.run_files import InputReader, parts_by_batch, read_parts
from worker.runs import OUTPUTS, ROWS_IN_DOUBT, TAG_STATE, Runs
from worker.series import Series, is_drawn, make_series
from worker.status import JobStatus
from worker.totals import Totals

log = logging.getLogger(__name__)

PREVIEW_ROWS = 100
FAILED_FILE = "failed.jsonl"
REPORT_FILE = "report.html"
THROUGHPUT_FILE = "throughput.png"
_DEAD = [verdict.value for verdict in Verdict if verdict.is_dead]
_RUN_STATUS = {
    JobState.COMPLETED: "FINISHED",
    JobState.FAILED: "FAILED",
    JobState.CANCELLED: "KILLED",
}
MAPPED_PARTS = 20
"""The vectors on the map are those of so many parts, or a few more, spread evenly: to read all of a
large job's took a third of the CPU of its end."""
CLOCK_SKEW_S = 5
"""By how much the hosts' clocks may differ before a sample hides the totals."""


def publish_part(runs: Runs, spec: JobSpec, *, batch: str, outcomes: Sequence[Outcome]) -> None:
    """Write a batch's part into the run. Raises ``TrackingError``; may be repeated."""
    with tempfile.TemporaryDirectory(prefix="part-") as folder:
        path = Path(folder) / part_name(batch)
        write_part(path, outcomes, spec.task)
        runs.log_file(spec.job_id, path, OUTPUTS)


def progress_metrics(status: JobStatus) -> dict[str, float]:
    """A running job's figures as metric points; rate and latencies are of its last seconds."""
    values: dict[str, float] = {f"rows.{v.value}": n for v, n in status.rows.items()}
    if status.has_usage:
        values |= {f"tokens.{name}": n for name, n in dataclasses.asdict(status.tokens).items()}
    values["throughput.rows_per_s"] = round(status.pace.rows_per_s, 3)
    values |= percentiles(status.pace.latencies)
    if status.cost_usd is not None:
        values["cost.usd"] = status.cost_usd
    return values | _request_metrics(status) | {"requests.in_flight": status.requests.in_flight}


def metric_step(spec: JobSpec) -> int:
    """Seconds since the job was submitted: grows also across a ``resume`` and between hosts."""
    created = datetime.fromisoformat(spec.created_at)
    return max(0, int((datetime.now(tz=timezone.utc) - created).total_seconds()))


def finalize(
    runs: Runs, spec: JobSpec, *, status: JobStatus, ending: JobState
) -> tuple[JobState, Totals]:
    """Sum the parts, write what a person looks at, and end the run.

    Returns the job's last state and its totals.

    ``ending`` is what the job shall end as; a run whose parts do not hold every row ends as
    failed, whatever was asked. ``status`` contributes the requests, which no outcome knows.
    """
    ended_ms = time.time_ns() // 1_000_000  # what follows is no work on rows
    with tempfile.TemporaryDirectory(prefix="final-") as folder:
        summary = _Summary(runs, spec, Path(folder))
        for batch, part in summary.parts():
            summary.add(batch, part)
        summary.log_files()
        totals = summary.totals
        state = _last_state(spec, ending=ending, totals=totals)
        exact = dataclasses.replace(status, rows=totals.rows, finished_ms=ended_ms)
        _log_report(runs, state=state, status=exact, summary=summary, ended_ms=ended_ms)
    _log_totals(runs, spec, status=exact, totals=totals)
    runs.set_tags(spec.job_id, {TAG_STATE: state.value})
    runs.end(spec.job_id, _RUN_STATUS[state])
    return state, totals


def _last_state(spec: JobSpec, *, ending: JobState, totals: Totals) -> JobState:
    if totals.rows_total == spec.rows:
        return ending
    log.error(
        "outcomes are missing",
        extra={"event": "outcomes_missing", "job_id": spec.job_id, "rows": totals.rows_total},
    )
    return JobState.FAILED


def _log_report(
    runs: Runs, *, state: JobState, status: JobStatus, summary: _Summary, ended_ms: int
) -> None:
    """Draw the report and put it into the run. What cannot be drawn costs the report alone."""
    job_id = status.job_id
    try:
        story = Story(
            spec=summary.spec,
            state=state,
            status=status,
            totals=summary.totals,
            digest=summary.digest,
            series=_series(runs, status=status, totals=summary.totals, ended_ms=ended_ms),
            ended_ms=ended_ms,
        )
        page, picture = make_report(story)
    except Exception:  # whatever a plot stumbles on: the outcomes are the record, not it
        log.exception("report not made", extra={"event": "report_failed", "job_id": job_id})
        return
    report, throughput = summary.folder / REPORT_FILE, summary.folder / THROUGHPUT_FILE
    report.write_bytes(page.encode("utf-8", "replace"))
    throughput.write_bytes(picture)
    for path in (report, throughput):
        runs.log_file(job_id, path)


def _series(runs: Runs, *, status: JobStatus, totals: Totals, ended_ms: int) -> Series:
    try:
        history = runs.history(status.job_id, is_drawn)
    except TrackingError as error:
        facts = {"event": "series_unreadable", "job_id": status.job_id, "reason": str(error)}
        log.warning("time series unreadable", extra=facts)
        history = {}
    values = totals.metrics() | _request_metrics(status)
    return make_series(history, started_ms=status.started_ms, ended_ms=ended_ms, totals=values)


def _log_totals(runs: Runs, spec: JobSpec, *, status: JobStatus, totals: Totals) -> None:
    values = totals.metrics() | _request_metrics(status)
    values["throughput.rows_per_s"] = round(status.rows_per_s, 3)
    # Above every sample's step, also of a host whose clock is ahead: MLflow shows the last step.
    step = metric_step(spec) + CLOCK_SKEW_S
    runs.log_metrics(spec.job_id, values, step=step, model_id=spec.model_id)


def _request_metrics(status: JobStatus) -> dict[str, float]:
    return {
        "requests.sent": status.requests.sent,
        "requests.answered": status.requests.answered,
        "requests.retried": status.requests.retried,
        "requests.throttled": status.requests.throttled,
        ROWS_IN_DOUBT: status.rows_in_doubt,
    }


@dataclass
class _Summary:
    """What the parts add up to, and the files for people that are made on the way."""

    runs: Runs
    spec: JobSpec
    folder: Path
    totals: Totals = field(default_factory=Totals)
    preview: list[list[Json]] = field(default_factory=list)
    _dead: int = 0
    _mapped: Collection[int] = ()

    def __post_init__(self) -> None:
        self.digest = Digest(self.spec.job_id)
        self._inputs = InputReader(self.runs, self.spec, self.folder)

    def parts(self) -> Iterator[tuple[int, pa.Table]]:
        """Every part of the run in order."""
        paths = parts_by_batch(self.runs, self.spec.job_id, (OUTPUTS,))
        self._mapped = set(list(paths)[:: max(1, len(paths) // MAPPED_PARTS)])
        return read_parts(
            self.runs, self.spec.job_id, paths, folder=self.folder, columns=self._columns
        )

    def _columns(self, batch: int) -> Sequence[str] | None:
        """All but vectors that nobody will see, neither in the preview nor on the map."""
        is_shown = batch in self._mapped or len(self.preview) < PREVIEW_ROWS
        if is_shown or self.spec.task is not Task.EMBEDDINGS:
            return None
        return [name for name in part_schema(self.spec.task).names if name != "output"]

    def add(self, batch: int, part: pa.Table) -> None:
        """Count one part, and keep what people will look at."""
        self.totals.add(part)
        self.digest.add(part)
        missing = PREVIEW_ROWS - len(self.preview)
        if missing > 0:
            self._add_preview(batch, part.slice(0, missing))
        dead = part.filter(pc.is_in(part["verdict"], pa.array(_DEAD)))
        if dead.num_rows:
            self._add_dead(batch, dead)

    def log_files(self) -> None:
        """Put ``failed.jsonl`` (where there is a dead row) and ``preview.json`` into the run."""
        columns = ["row_id", "input", "output", "verdict", "total_tokens", "error_message"]
        preview = self.folder / "preview.json"
        table = json.dumps({"columns": columns, "data": self.preview}, ensure_ascii=False)
        preview.write_bytes(table.encode("utf-8", "replace"))  # lone surrogates have no UTF-8
        self.runs.log_file(self.spec.job_id, preview)
        # Source of the tag: mlflow 3.17.2, log_table: the UI shows such a file as a table.
        shown = [{"path": "preview.json", "type": "table"}]
        self.runs.set_tags(self.spec.job_id, {"mlflow.loggedArtifacts": json.dumps(shown)})
        if self._dead or FAILED_FILE in self.runs.files(self.spec.job_id, None):
            self._failed_path.touch()  # empty where a retry has left no dead row
            self.runs.log_file(self.spec.job_id, self._failed_path)

    def _inputs_of(self, batch: int) -> dict[int, Json]:
        """The input beside the outcomes; nothing where it is gone: the outcomes count."""
        try:
            return self._inputs.of_batch(batch) or {}
        except InputError as error:
            log.warning(
                "input unreadable",
                extra={
                    "event": "input_unreadable",
                    "job_id": self.spec.job_id,
                    "reason": str(error),
                },
            )
            return {}

    @property
    def _failed_path(self) -> Path:
        return self.folder / FAILED_FILE

    def _add_preview(self, batch: int, part: pa.Table) -> None:
        inputs = self._inputs_of(batch)
        for row in part.to_pylist():
            output = row["output"]
            shown = output[:8] if isinstance(output, list) else output
            self.preview.append(
                [
                    row["row_id"],
                    inputs.get(row["index"]),
                    shown,
                    row["verdict"],
                    row["total_tokens"],
                    row["error_message"],
                ]
            )

    def _add_dead(self, batch: int, dead: pa.Table) -> None:
        inputs = self._inputs_of(batch)
        with self._failed_path.open("a", encoding="utf-8", errors="replace") as file:
            for row in dead.to_pylist():
                line: dict[str, Any] = {
                    name: row[name] for name in ("row_id", "index", "verdict", "attempts")
                }
                line["input"] = inputs.get(row["index"])
                self.digest.add_dead(row, line["input"])
                line["error"] = {
                    name: row[f"error_{name}"] for name in ("type", "status", "code", "message")
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                self._dead += 1
