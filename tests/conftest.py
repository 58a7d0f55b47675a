"""Fixtures that all tests share: Redis, twice over, a server of our own, and a whole system."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest
import redis as redis_py
from redis.asyncio import Redis

from flavor.errors import InputError
from producer.embedded import embedded_redis
from tests import fork_server
from tests.fake_redis import FakeRedis
from tests.system import KEY, Simulator, System, simulated_api
from worker.redis_client import connect, text

_LASTING = ("jobs", "jobs:active", "jobs:drafts", "limit:", "job:")
"""Keys that a test may leave without a TTL: those of jobs that have not ended."""


# A machine with other things to do takes 200 ms for anything at times: that is no failure.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


def pytest_xdist_auto_num_workers() -> int:
    """What ``-n auto`` means: tests of a whole system wait as long as they compute."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The desk's own keys and servers are none of a test's business."""
    for name in list(os.environ):
        if name.startswith(("BATCH_", "OPENAI_", "AZURE_OPENAI", "MLFLOW_")) or name == "REDIS_URL":
            monkeypatch.delenv(name)


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Have a measured figure stand at the end of the test session's output."""
    return lambda text: record_property("figure", text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures; they come with the reports, from other processes, too."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if getattr(report, "when", "") == "call"
    ]
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {text}"
        for report in reports
        for name, text in report.user_properties
        if name == "figure"
    ]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session", autouse=True)
def _no_fork_server_left() -> Iterator[None]:
    yield
    fork_server.stop()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a Redis server started for this test session."""
    try:
        with embedded_redis() as redis:
            yield redis.url
    except InputError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Redis server: {error}")


@pytest.fixture(params=["fake", "real"])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """An empty Redis; every test that uses it runs on fakeredis and on a real server."""
    if request.param == "fake":
        client: Redis = FakeRedis()
    else:
        client = connect(request.getfixturevalue("redis_server"))
        await client.flushall()
    yield client
    await _refuse_keys_without_end(client)
    await client.aclose()


@pytest.fixture
def start_simulator() -> Iterator[Callable[..., Simulator]]:
    """Start simulated APIs with the given options of ``producer simulate``."""
    with ExitStack() as started:
        yield lambda *options: started.enter_context(simulated_api(*options))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables: making them takes seconds, copying them does not."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    code = f"from worker.runs import prepare_tracking; prepare_tracking('sqlite:///{path}')"
    with Path(os.devnull).open("wb") as nowhere:
        made = fork_server.start(
            ["-c", code], cwd=path.parent, env=dict(os.environ), stdout=nowhere, stderr=nowhere
        )
    assert made.wait(60) == 0
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
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "BATCH_LEASE_S": "5",
    }
    made = System(folder=tmp_path, environment=environment, simulator=simulator)
    yield made
    made.close()


async def _refuse_keys_without_end(client: Redis) -> None:
    """Whatever is finished must expire: fail the test that leaves a key behind for ever."""
    finished = {
        text(key).split("{")[1].split("}")[0]
        async for key in client.scan_iter("job:{*}")
        if text(key).endswith("}")
        and text(await client.hget(key, "state")) in ("completed", "failed", "cancelled")
    }
    for key in [text(key) async for key in client.scan_iter("*")]:
        owner = key.split("{")[1].split("}")[0] if key.startswith("job:{") else ""
        is_lasting = key.startswith(_LASTING) and owner not in finished
        assert is_lasting or await client.ttl(key) > 0, f"{key} never expires"
