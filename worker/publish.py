"""What goes into the run: a batch's part as soon as it is done, and at the end the whole story.

Blocking, called in threads. Everything here may be repeated: a part is a pure function of its
batch, and the finalizer reads nothing but the run (and Redis for what no outcome can tell).
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flavor.types import Json
from worker.jobs import JobSpec, JobState, Outcome, Verdict
from worker.parts import part_name, read_part, write_part
from worker.run_files import InputReader, part_number
from worker.runs import OUTPUTS, TAG_STATE, Runs
from worker.status import JobStatus
from worker.totals import Totals

log = logging.getLogger(__name__)

PREVIEW_ROWS = 100
FAILED_FILE = "failed.jsonl"
_DEAD = [verdict.value for verdict in Verdict if verdict.is_dead]
_RUN_STATUS = {
    JobState.COMPLETED: "FINISHED",
    JobState.FAILED: "FAILED",
    JobState.CANCELLED: "KILLED",
}
_AHEAD = 8
"""Parts fetched at once: a store behind a server answers in tens of milliseconds each."""


def publish_part(runs: Runs, spec: JobSpec, *, batch: str, outcomes: Sequence[Outcome]) -> None:
    """Write a batch's part into the run. Raises ``TrackingError``; may be repeated."""
    with tempfile.TemporaryDirectory(prefix="part-") as folder:
        path = Path(folder) / part_name(batch)
        write_part(path, outcomes, spec.task)
        runs.log_file(spec.job_id, path, OUTPUTS)


def progress_metrics(status: JobStatus) -> dict[str, float]:
    """A running job's figures as metric points, and ``elapsed_s`` to be used as their step."""
    elapsed_s = max(0.001, time.time() - (status.started_ms or 0) / 1000)
    values: dict[str, float] = {f"rows.{v.value}": n for v, n in status.rows.items()}
    tokens = status.tokens
    values |= {
        "tokens.prompt": tokens.prompt,
        "tokens.completion": tokens.completion,
        "tokens.total": tokens.total,
        "tokens.cached": tokens.cached,
        "tokens.reasoning": tokens.reasoning,
        "throughput.rows_per_s": round(status.rows_done / elapsed_s, 3),
        "elapsed_s": elapsed_s,
    }
    if status.cost_usd is not None:
        values["cost.usd"] = status.cost_usd
    return values | _request_metrics(status) | {"requests.in_flight": status.requests.in_flight}


def finalize(
    runs: Runs, spec: JobSpec, *, status: JobStatus, ending: JobState
) -> tuple[JobState, Totals]:
    """Sum the parts, write what a person looks at, and end the run.

    Returns the job's last state and its totals.

    ``ending`` is what the job shall end as; a run whose parts do not hold every row ends as
    failed, whatever was asked. ``status`` contributes the requests, which no outcome knows.
    """
    with tempfile.TemporaryDirectory(prefix="final-") as folder:
        summary = _Summary(runs, spec, Path(folder))
        for batch, part in summary.parts():
            summary.add(batch, part)
        summary.log_files()
    totals = summary.totals
    state = ending
    if totals.rows_total != spec.rows:
        state = JobState.FAILED
        log.error(
            "outcomes are missing",
            extra={"event": "outcomes_missing", "job_id": spec.job_id, "rows": totals.rows_total},
        )
    _log_totals(runs, spec, status=status, totals=totals)
    runs.set_tags(spec.job_id, {TAG_STATE: state.value})
    runs.end(spec.job_id, _RUN_STATUS[state])
    return state, totals


def _log_totals(runs: Runs, spec: JobSpec, *, status: JobStatus, totals: Totals) -> None:
    elapsed_s = max(0.001, time.time() - (status.started_ms or status.created_ms or 0) / 1000)
    values = totals.metrics() | _request_metrics(status)
    done = totals.rows_total - totals.rows[Verdict.CANCELLED]
    values["throughput.rows_per_s"] = round(done / elapsed_s, 3)
    # A step above every sample's: MLflow shows a metric's last step as its value.
    runs.log_metrics(spec.job_id, values, step=int(elapsed_s) + 1, model_id=spec.model_id)


def _request_metrics(status: JobStatus) -> dict[str, float]:
    return {
        "requests.sent": status.requests.sent,
        "requests.retried": status.requests.retried,
        "requests.throttled": status.requests.throttled,
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

    def __post_init__(self) -> None:
        self._inputs = InputReader(self.runs, self.spec, self.folder)

    def parts(self) -> Iterator[tuple[int, pa.Table]]:
        """Every part of the run in order, a few fetched ahead."""
        paths = self.runs.files(self.spec.job_id, OUTPUTS)
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="parts") as threads:
            pending = [threads.submit(self._read, path) for path in islice(paths, _AHEAD)]
            rest = iter(paths[_AHEAD:])
            for path in paths:
                table = pending.pop(0).result()
                following = next(rest, None)
                if following is not None:
                    pending.append(threads.submit(self._read, following))
                yield part_number(path), table

    def add(self, batch: int, part: pa.Table) -> None:
        """Count one part, and keep what people will look at."""
        self.totals.add(part)
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
        preview.write_text(
            json.dumps({"columns": columns, "data": self.preview}, ensure_ascii=False), "utf-8"
        )
        self.runs.log_file(self.spec.job_id, preview)
        # Source of the tag: mlflow 3.17.2, log_table: the UI shows such a file as a table.
        table = [{"path": "preview.json", "type": "table"}]
        self.runs.set_tags(self.spec.job_id, {"mlflow.loggedArtifacts": json.dumps(table)})
        if self._dead or FAILED_FILE in self.runs.files(self.spec.job_id, None):
            self._failed_path.touch()  # empty where a retry has left no dead row
            self.runs.log_file(self.spec.job_id, self._failed_path)

    @property
    def _failed_path(self) -> Path:
        return self.folder / FAILED_FILE

    def _read(self, path: str) -> pa.Table:
        local = self.runs.fetch(self.spec.job_id, path, self.folder)
        table = read_part(local)
        local.unlink(missing_ok=True)
        return table

    def _add_preview(self, batch: int, part: pa.Table) -> None:
        inputs = self._inputs.of_batch(batch) or {}
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
        inputs = self._inputs.of_batch(batch) or {}
        with self._failed_path.open("a", encoding="utf-8", errors="replace") as file:
            for row in dead.to_pylist():
                line: dict[str, Any] = {
                    name: row[name] for name in ("row_id", "index", "verdict", "attempts")
                }
                line["input"] = inputs.get(row["index"])
                line["error"] = {
                    name: row[f"error_{name}"] for name in ("type", "status", "code", "message")
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                self._dead += 1
