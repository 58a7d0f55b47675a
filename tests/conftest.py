"""Fixtures that all tests share: Redis, twice over, and a server of our own for the real one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from flavor.errors import InputError
from producer.embedded import embedded_redis
from tests.fake_redis import FakeRedis
from worker.redis_client import connect, text

_LASTING = ("jobs", "jobs:active", "jobs:drafts", "limit:", "job:")
"""Keys that a test may leave without a TTL: those of jobs that have not ended."""


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The desk's own keys and servers are none of a test's business."""
    for name in list(os.environ):
        if name.startswith(("BATCH_", "OPENAI_", "AZURE_OPENAI", "MLFLOW_")) or name == "REDIS_URL":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a Redis server started for this test session."""
    try:
        with embedded_redis() as url:
            yield url
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
