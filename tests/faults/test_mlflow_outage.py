"""MLflow goes away in the middle of a job: parts wait, nothing fails, nothing is paid twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.jobs import assert_all_succeeded, submit, wait_for_end
from tests.servers import MlflowServer
from tests.system import System, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.faults]

ROWS = 500


@pytest.mark.parametrize("away_s", [6, pytest.param(20, marks=[pytest.mark.soak])])
def test_an_mlflow_server_that_is_away_for_a_while_costs_nothing(
    system: System,
    mlflow_server: MlflowServer,
    write_rows: Callable[[int], Path],
    away_s: float,
) -> None:
    system.simulator.configure(latency_s=0.4)
    system.start_worker(BATCH_CONCURRENCY="32", BATCH_LEASE_S="3")
    job_id = submit(system, write_rows(ROWS), "--batch-size", "25")
    wait_until(lambda: system.simulator.stats()["accepted"] > ROWS // 4, 60)

    mlflow_server.kill()
    time.sleep(away_s)
    mlflow_server.start(system.environment)
    wait_for_end(system, job_id)

    assert_all_succeeded(system, job_id, ROWS)
    assert system.simulator.stats()["accepted"] == ROWS


def test_a_worker_that_cannot_load_the_model_yet_waits_for_mlflow(
    system: System, mlflow_server: MlflowServer, write_rows: Callable[[int], Path]
) -> None:
    job_id = submit(system, write_rows(20))
    mlflow_server.kill()
    worker = system.start_worker()
    wait_until(lambda: "service_awaited" in system.worker_log(), 60)
    assert system.status(job_id)["state"] == "in_progress"
    mlflow_server.start(system.environment)
    wait_for_end(system, job_id)

    assert worker.poll() is None
    assert_all_succeeded(system, job_id, 20)
