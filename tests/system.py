"""A whole system as a test sees it: the command, workers, the simulated API, Redis and MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis as redis_py

from tests import fork_server
from tests.fork_server import Forked

KEY = "sk-test-0123456789abcdef"
"""What must never be found anywhere but in the environment of workers."""


def wait_until(predicate: Callable[[], Any], timeout_s: float = 30) -> Any:
    """Poll until the predicate holds; its value. Fails the test after ``timeout_s``."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        value = predicate()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: {predicate}")


@dataclass
class Simulator:
    """A simulated API in a process of its own."""

    base_url: str
    process: subprocess.Popen[str]

    def stats(self, query: str = "") -> dict[str, Any]:
        """What it has counted."""
        url = self.base_url.removesuffix("/v1") + f"/stats{query}"
        with urllib.request.urlopen(url, timeout=10) as response:
            found: dict[str, Any] = json.load(response)
        return found

    def configure(self, **settings: Any) -> None:
        """Change limits, latency or faults while it runs."""
        url = self.base_url.removesuffix("/v1") + "/config"
        body = json.dumps(settings).encode()
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        urllib.request.urlopen(request, timeout=10).close()


@contextmanager
def simulated_api(*options: str) -> Iterator[Simulator]:
    """A simulated API with these options of ``producer simulate``, for the length of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "producer.simulator", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Simulator(base_url=json.loads(process.stdout.readline())["base_url"], process=process)
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@dataclass
class System:
    """One Redis database, one MLflow store, one simulated API, and any number of workers."""

    folder: Path
    environment: dict[str, str]
    simulator: Simulator
    workers: list[Forked] = field(default_factory=list)

    @property
    def tracking_uri(self) -> str:
        return self.environment["MLFLOW_TRACKING_URI"]

    def redis(self) -> redis_py.Redis:
        """A blocking client, to look into Redis from outside."""
        return redis_py.Redis.from_url(self.environment["REDIS_URL"])

    def start_worker(self, **settings: str) -> Forked:
        """Start a Celery worker as a user does."""
        name = f"w{len(self.workers)}"
        with (self.folder / f"{name}.log").open("wb") as log:
            worker = fork_server.start(
                ["-m", "celery", "-A", "worker", "worker", "-n", f"{name}@%h"],
                cwd=self.folder,
                env={**self.environment, **settings},
                stdout=log,
                stderr=log,
            )
        self.workers.append(worker)
        return worker

    def worker_log(self, number: int = 0) -> str:
        """What a worker has written so far."""
        return (self.folder / f"w{number}.log").read_text(errors="replace")

    def producer(
        self, *args: str, stdin: str | None = None, without: tuple[str, ...] = (), **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``producer`` with these arguments, to its end."""
        environment = {**self.environment, **settings}
        for name in without:
            environment.pop(name, None)
        return self._run(["-m", "producer", *args], environment=environment, stdin=stdin or "")

    def python(self, code: str) -> str:
        """What a script of the user's prints, in this system's environment."""
        done = self._run(["-c", code], environment=self.environment, stdin="")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start_producer(self, *args: str) -> Forked:
        """Run ``producer`` with these arguments, and do not wait for it; what it says is lost."""
        with Path(os.devnull).open("wb") as nowhere:
            return fork_server.start(
                ["-m", "producer", *args],
                cwd=self.folder, env=self.environment, stdout=nowhere, stderr=nowhere,
            )  # fmt: skip

    def status(self, job_id: str) -> dict[str, Any]:
        """What ``producer status --json`` says."""
        done = self.producer("status", job_id, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def close(self) -> None:
        """End the workers, in good order where they can."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.terminate()
        for worker in self.workers:
            with suppress(subprocess.TimeoutExpired):
                worker.wait(10)
            if worker.poll() is None:
                worker.kill()
                worker.wait(10)

    def _run(
        self, command: list[str], *, environment: dict[str, str], stdin: str
    ) -> subprocess.CompletedProcess[str]:
        with (
            tempfile.TemporaryFile("w+") as given,
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
        ):
            given.write(stdin)
            given.seek(0)
            process = fork_server.start(
                command, cwd=self.folder, env=environment, stdin=given, stdout=out, stderr=err
            )
            try:
                process.wait(100)
            finally:
                process.kill()
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, process.wait(), out.read(), err.read())
