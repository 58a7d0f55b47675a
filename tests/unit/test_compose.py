"""``docker-compose.yml`` and ``Dockerfile``: what stands in them that must not be lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from producer.embedded import REDIS_SETTINGS

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_every_port_is_on_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", SERVICES)
def test_nobody_is_root_or_may_become_it(name: str) -> None:
    service = SERVICES[name]

    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    if service["image"] == "batch-inference-worker":
        assert "\nUSER app\n" in (ROOT / "Dockerfile").read_text()
    else:
        assert service["user"] in ("redis", "postgres")


@pytest.mark.parametrize("name", SERVICES)
def test_what_runs_on_is_watched_and_started_again(name: str) -> None:
    service = SERVICES[name]

    if service["restart"] == "no":
        assert name in ("producer", "demo")
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"]


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("flower", "FLOWER_BASIC_AUTH"),
        ("redis", "REDISCLI_AUTH"),
        ("postgres", "POSTGRES_PASSWORD"),
        ("worker", "REDIS_URL"),
    ],
)
def test_without_a_password_nothing_starts(name: str, variable: str) -> None:
    """``:?`` makes compose refuse; no default could be forgotten there."""
    assert "PASSWORD:?set it in .env}" in SERVICES[name]["environment"][variable]


def test_redis_keeps_what_it_was_told_as_the_embedded_one_does() -> None:
    [command] = SERVICES["redis"]["command"]

    told = [line.strip() for line in command.splitlines()]
    assert {"appendonly yes", "maxmemory-policy noeviction"} <= set(REDIS_SETTINGS) <= set(told)


def test_a_worker_has_time_to_finish_what_is_in_flight() -> None:
    """Longer than a request may take by default, which is 10 minutes."""
    assert SERVICES["worker"]["stop_grace_period"] == "11m"
