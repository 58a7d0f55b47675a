"""A file of texts goes in, workers run it, and the same numbers stand everywhere."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.system import System

pytestmark = pytest.mark.integration

ROWS = 700


def _write_reviews(folder: Path) -> Path:
    path = folder / "reviews.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review_id", "text"])
        for number in range(ROWS):
            writer.writerow(
                [f"{number:05d}", f"review {number} is {'great' if number % 2 else 'bad'}"]
            )
    return path


def _parts(system: System, job_id: str) -> pa.Table:
    mlflow.set_tracking_uri(system.tracking_uri)
    folder = mlflow.artifacts.download_artifacts(run_id=job_id, artifact_path="outputs")
    return pa.concat_tables(pq.read_table(path) for path in sorted(Path(folder).iterdir()))


def _metrics(system: System, job_id: str) -> dict[str, Any]:
    mlflow.set_tracking_uri(system.tracking_uri)
    return dict(mlflow.MlflowClient().get_run(job_id).data.metrics)


def test_every_row_has_one_outcome_and_all_sums_agree(system: System) -> None:
    """``status``, the run's metrics, the parts and the API's own count say the same."""
    system.start_worker()
    system.start_worker()

    done = system.producer(
        "submit", str(_write_reviews(system.folder)), "--prompt", "Sentiment of: {text}",
        "--openai-model", "gpt-4o-mini", "--id-column", "review_id", "--batch-size", "50", "--wait",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    job_id = done.stdout.strip()
    status, metrics, parts = system.status(job_id), _metrics(system, job_id), _parts(system, job_id)
    paid = system.simulator.stats()
    assert parts["row_id"].to_pylist() == [f"{number:05d}" for number in range(ROWS)]
    assert set(parts["verdict"].to_pylist()) == {"succeeded"}
    assert status["rows"]["succeeded"] == metrics["rows.succeeded"] == ROWS == paid["accepted"]
    for kind in ("prompt", "completion", "total"):
        total = sum(parts[f"{kind}_tokens"].to_pylist())
        assert status["tokens"][kind] == metrics[f"tokens.{kind}"] == total == paid["tokens"][kind]
    assert status["cost_usd"] == pytest.approx(sum(parts["cost_usd"].to_pylist()))
    assert status["cost_usd"] == metrics["cost.usd"]
    assert status["requests"]["sent"] == metrics["requests.sent"] == ROWS


def test_a_bad_row_costs_one_row_and_the_exit_status_says_so(system: System) -> None:
    system.start_worker()
    path = system.folder / "rows.jsonl"
    texts = ["fine", "[[reject]] me", "also fine"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    done = system.producer(
        "submit", str(path), "--prompt", "Say: {text}", "--openai-model", "gpt-4o-mini", "--wait"
    )

    assert done.returncode == 3, done.stderr
    failed = system.producer("results", done.stdout.strip(), "--failed")
    (row,) = [json.loads(line) for line in failed.stdout.splitlines()]
    assert row["verdict"] == "rejected"
    assert row["error_status"] == 400
    assert row["text"] == "[[reject]] me"
