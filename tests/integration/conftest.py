"""Fixtures that start a whole system for one test, every part of it by the test itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_py

from tests.system import KEY, Simulator, System


@pytest.fixture
def start_simulator() -> Iterator[Callable[..., Simulator]]:
    """Start simulated APIs with the given options of ``producer simulate``."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> Simulator:
        process = subprocess.Popen(
            [sys.executable, "-m", "producer.simulator", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        return Simulator(
            base_url=json.loads(process.stdout.readline())["base_url"], process=process
        )

    yield start
    for process in started:
        process.terminate()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables: making them takes seconds, copying them does not."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    code = f"from worker.runs import prepare_tracking; prepare_tracking('sqlite:///{path}')"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=path.parent)
    return path


@pytest.fixture
def system(
    tmp_path: Path,
    empty_store: Path,
    redis_server: str,
    start_simulator: Callable[..., Simulator],
) -> Iterator[System]:
    """A system without workers yet."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    redis_py.Redis.from_url(redis_server).flushall()
    simulator = start_simulator("--latency", "0.02")
    environment = {
        **os.environ,
        "REDIS_URL": redis_server,
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "OPENAI_BASE_URL": simulator.base_url,
        "OPENAI_API_KEY": KEY,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "BATCH_LEASE_S": "5",
    }
    made = System(folder=tmp_path, environment=environment, simulator=simulator)
    yield made
    made.close()
