"""``python -m tests.bench.finalizing ROWS``: what it takes to finalize a run of so many outcomes.

Makes an MLflow run in the working directory with a part per 200 outcomes, finalizes it as a worker
does, and prints seconds, CPU, and memory before and at most, as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

from flavor.types import Task, Usage
from tests.bench.figures import memory_mb_of
from tests.bench.watching import watched
from worker.jobs import JobSpec, JobState, Outcome, Verdict
from worker.parts import part_name, write_part
from worker.publish import finalize
from worker.runs import OUTPUTS, Runs, prepare_tracking
from worker.status import status_of

BATCH_ROWS = 200


def main() -> None:
    """Make the run, finalize it, print."""
    rows = int(sys.argv[1])
    uri = f"sqlite:///{Path.cwd()}/mlflow.db"
    prepare_tracking(uri)
    runs = Runs(uri)
    spec = _spec(runs, rows)
    root = Path(str(runs.get(spec.job_id).info.artifact_uri).removeprefix("file://")) / OUTPUTS
    root.mkdir(parents=True)
    write_part(root / part_name(0), [_outcome(n) for n in range(BATCH_ROWS)], Task.CHAT)
    for batch in range(1, spec.batches):
        shutil.copy(root / part_name(0), root / part_name(batch))
    now_ms = time.time_ns() // 1_000_000
    job = {
        b"spec": spec.to_json().encode(),
        b"state": b"finalizing",
        b"created_ms": str(now_ms - 100_000).encode(),
        b"started_ms": str(now_ms - 90_000).encode(),
    }
    status = status_of(spec, job=job, counts={}, workers={}, now_ms=now_ms)
    before_mb = memory_mb_of(os.getpid())
    with watched({"finalizer": os.getpid()}, every_s=0.2) as course:
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        state, totals = finalize(runs, spec, status=status, ending=JobState.COMPLETED)
        seconds, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    assert state is JobState.COMPLETED
    assert totals.rows_total == rows
    peak_mb = course.peak_mb("finalizer")
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "before": before_mb, "peak": peak_mb}))


def _spec(runs: Runs, rows: int) -> JobSpec:
    return JobSpec(
        job_id=runs.create(experiment="bench", run_name="finalizing", tags={}),
        name="finalizing",
        model_uri="models:/bench/1",
        model_uri_given="models:/bench/1",
        model_id=None,
        task=Task.CHAT,
        openai_model="gpt-4o-mini",
        rows=rows,
        batches=rows // BATCH_ROWS,
        batch_size=BATCH_ROWS,
        input_name="rows.jsonl",
        input_sha256="0" * 64,
        created_at="2026-01-01T00:00:00+00:00",
        is_input_logged=False,
    )


def _outcome(index: int) -> Outcome:
    return Outcome(
        row_id=f"r{index}",
        index=index,
        verdict=Verdict.SUCCEEDED,
        output="neutral",
        finish_reason="stop",
        usage=Usage(prompt_tokens=60 + index % 40, completion_tokens=2, total_tokens=62),
        cost_usd=1.02e-05,
        attempts=1,
        latency_s=0.05 + index % 7 / 100,
        request_id=f"req_{index:032x}",
        response_model="gpt-4o-mini-2024-07-18",
    )


if __name__ == "__main__":
    main()
