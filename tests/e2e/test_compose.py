"""``docker-compose.yml`` as an operator runs it, with a worker's container killed in the middle.

Needs an engine, and the images: ``docker compose --profile demo build`` and ``pull`` first. Then
``pytest -m docker``.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PASSWORD = "0123456789abcdef"
WORKERS, CONCURRENCY, ROWS = 4, 32, 3000


class Compose:
    """The project's file under a name, ports and volumes of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.ports = {name: _free_port() for name in ("REDIS", "MLFLOW", "FLOWER", "SIMULATOR")}
        self.name = f"batch-test-{os.getpid()}"
        self._env = folder / "env"
        settings = (
            (ROOT / ".env.example").read_text().replace("PASSWORD=\n", f"PASSWORD={PASSWORD}\n")
        )
        ports = "".join(f"{name}_PORT={port}\n" for name, port in self.ports.items())
        self._env.write_text(
            f"{settings}\n{ports}DATA={folder}\nBATCH_CONCURRENCY={CONCURRENCY}\n"
            f"COMPOSE_PROJECT_NAME={self.name}\n"
        )

    def run(self, *args: str) -> str:
        """Run one command of compose; its standard output."""
        done = subprocess.run(
            [*_command(), "--env-file", str(self._env), "-p", self.name, *args],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def producer(self, *args: str) -> str:
        """Run the command line in a container, as the file's head shows."""
        return self.run("run", "--rm", "-T", "producer", *args).strip()

    def inspect(self, service: str, template: str) -> list[str]:
        """Something about each container of a service."""
        containers = self.run("--profile", "demo", "ps", "-q", service).split()
        done = subprocess.run(
            ["docker", "inspect", "--format", template, *containers],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    def accepted(self) -> int:
        """How many requests the simulated API has answered, and would have been paid for."""
        url = f"http://127.0.0.1:{self.ports['SIMULATOR']}/stats"
        with urllib.request.urlopen(url, timeout=10) as response:
            return int(json.load(response)["accepted"])

    def flower(self, path: str, *, password: str | None) -> Any:
        """What Flower answers to somebody with this password."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports['FLOWER']}{path}")
        if password:
            token = base64.b64encode(f"admin:{password}".encode()).decode()
            request.add_header("authorization", f"Basic {token}")
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)


def _command() -> list[str]:
    if shutil.which("docker") is None:
        pytest.skip("no docker here")
    image = ["docker", "image", "inspect", "batch-inference-worker"]
    if subprocess.run(image, check=False, capture_output=True).returncode:
        pytest.skip("no engine, or no image yet: docker compose --profile demo build")
    plugin = ["docker", "compose", "version"]
    if subprocess.run(plugin, check=False, capture_output=True).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Compose]:
    """Everything up, with four workers and the simulated API."""
    made = Compose(tmp_path)
    try:
        made.run("--profile", "demo", "up", "--detach", "--scale", f"worker={WORKERS}")
        yield made
    finally:
        made.run("--profile", "demo", "down", "--volumes", "--timeout", "20")


def test_a_killed_container_loses_nothing_and_comes_back(compose: Compose, tmp_path: Path) -> None:
    wait_until(lambda: compose.inspect("demo", "{{.State.Status}}") == ["exited"], 120)
    assert compose.inspect("demo", "{{.State.ExitCode}}") == ["0"]  # a job with no key at all
    before = compose.accepted()
    tmp_path.chmod(0o755)
    (tmp_path / "rows.txt").write_text("".join(f"a review, number {n}\n" for n in range(ROWS)))

    job_id = compose.producer(
        "submit", "rows.txt", "--prompt", "Say: {text}", "--openai-model", "gpt-4o-mini",
        "--batch-size", "100",
    )  # fmt: skip
    wait_until(lambda: compose.accepted() - before > ROWS / 4)
    victim = int(compose.inspect("worker", "{{.State.Pid}}")[1])
    os.kill(victim, signal.SIGKILL)  # as the kernel does when memory is short
    compose.producer("watch", job_id)

    status = json.loads(compose.producer("status", job_id, "--json"))
    assert status["state"] == "completed"
    assert status["rows"]["succeeded"] == ROWS
    assert "verified: one outcome per row" in compose.producer("verify", job_id)
    # In flight at the kill, or answered since the last checkpoint, 50 ms before.
    assert compose.accepted() - before <= ROWS + 2 * CONCURRENCY
    wait_until(lambda: compose.inspect("worker", "{{.State.Status}}") == ["running"] * WORKERS)


def test_nobody_is_root_and_nothing_answers_without_its_password(compose: Compose) -> None:
    services = ("redis", "postgres", "mlflow", "worker", "flower", "simulator")

    users = {s: compose.run("exec", "-T", s, "id", "-u").strip() for s in services}
    bindings = {
        address
        for service in services
        for address in compose.inspect(
            service,
            "{{range .NetworkSettings.Ports}}{{range .}}{{.HostIp}} {{end}}{{end}}",
        )
    }

    assert "0" not in users.values(), users
    assert bindings == {"127.0.0.1"}
    with pytest.raises(urllib.error.HTTPError, match="401"):
        compose.flower("/api/tasks", password=None)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        compose.flower("/api/tasks", password="wrong")
    assert isinstance(compose.flower("/api/tasks", password=PASSWORD), dict)
    refused = compose.run("exec", "-T", "-e", "REDISCLI_AUTH=", "redis", "redis-cli", "ping")
    assert "NOAUTH" in refused
