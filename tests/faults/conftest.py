"""Fixtures for breaking things: servers of the test's own, and a job to be broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import MlflowServer, RedisServer, Wire
from tests.system import System


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that this test alone uses, and may kill."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def wire(own_redis: RedisServer) -> Iterator[Wire]:
    """The way to that Redis, which can be cut."""
    made = Wire(own_redis.port)
    yield made
    made.close()


@pytest.fixture
def mlflow_server(tmp_path: Path, system: System) -> Iterator[MlflowServer]:
    """An MLflow server on the system's database; the system talks to it from here on."""
    server = MlflowServer(tmp_path / "mlflow", tmp_path / "mlflow.db")
    server.start(system.environment)
    system.environment["MLFLOW_TRACKING_URI"] = server.url
    yield server
    server.kill()


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[[int], Path]:
    """Write a file of so many texts that all differ."""

    def write(count: int) -> Path:
        path = tmp_path / "rows.txt"
        path.write_text("".join(f"row {number}\n" for number in range(count)))
        return path

    return write
