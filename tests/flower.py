"""Flower, started as a user starts it, and asked over HTTP as a browser asks it."""

from __future__ import annotations

import json
import socket
import urllib.request
from typing import Any

from tests import fork_server
from tests.system import System, wait_until


class Flower:
    """``celery -A worker flower`` on a free port, with nothing said but the port."""

    def __init__(self, system: System) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        with (system.folder / "flower.log").open("wb") as log:
            self._process = fork_server.start(
                ["-m", "celery", "-A", "worker", "flower", f"--port={self.port}"],
                cwd=system.folder,
                env={**system.environment, "FLOWER_UNAUTHENTICATED_API": "true"},
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def text(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            return str(response.read().decode())

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks, oldest first."""
        found: dict[str, dict[str, Any]] = json.loads(self.text("/api/tasks"))
        return sorted(found.values(), key=lambda task: task["received"] or 0)

    def results(self) -> list[str]:
        """The results of the tasks that have ended, without the quotes."""
        return [str(task["result"]).strip("'") for task in self.tasks() if task["result"]]

    def waiting(self) -> int:
        """How many messages wait, as its broker page shows it."""
        lengths: dict[str, Any] = json.loads(self.text("/api/queues/length"))
        return sum(queue["messages"] for queue in lengths["active_queues"])

    def _answers(self) -> bool:
        assert self._process.poll() is None
        try:
            return self.text("/healthcheck") == "OK"
        except OSError:
            return False
