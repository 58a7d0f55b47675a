"""A run's artifacts are read where they lie, on a real store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from worker.runs import Runs

pytestmark = pytest.mark.integration


def test_mlflow_is_asked_once_where_a_runs_artifacts_are(empty_store: Path, tmp_path: Path) -> None:
    """Asked again for every part, it took 8 ms of CPU each: it looks up the run and its models."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    runs = Runs(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = runs._client.create_experiment("e", artifact_location=(tmp_path / "a").as_uri())
    assert experiment
    job_id = runs.create(experiment="e", run_name="r", tags={})
    names = [f"part-{number}" for number in range(5)]
    for name in names:
        (tmp_path / name).write_text(name)
        runs.log_file(job_id, tmp_path / name, "outputs")
    statements: list[str] = []

    @event.listens_for(Engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    asked: list[int] = []
    try:
        for name in names:
            fetched = runs.fetch(job_id, f"outputs/{name}", tmp_path / "fetched")
            assert fetched.read_text() == name
            asked.append(len(statements))
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    assert asked == [asked[0]] * 5
    assert asked[0] > 0
