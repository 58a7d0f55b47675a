"""This project on the bench: a simulated API, a Redis, an MLflow store and workers of its own.

Counted is all that a job costs: the whole worker processes, Redis, and the producer, each without
its start (the worker has done a small job before; of the producer's CPU that of a small submit is
taken off).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.clients.job import KEY, OPENAI_MODEL, SYSTEM
from tests.bench.figures import Figures, cpu_s_of, memory_mb_of
from tests.servers import RedisServer
from tests.system import Simulator, System, wait_until

ROOT = Path(__file__).parents[2]
UNLIMITED = ("--rpm", "100000000", "--tpm", "100000000000")
"""Limits that are never met, so that the limiter works and nothing waits for it."""

_MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "{text}"}]
_LOG_MODEL = f"""
import flavor, mlflow
with mlflow.start_run():
    flavor.log_model(model={OPENAI_MODEL!r}, task="chat.completions", name="bench",
        messages={_MESSAGES!r}, registered_model_name="bench")
"""


_SUBMIT = """
import resource, runpy, sys
sys.argv = {command!r}
try:
    runpy.run_module("producer", run_name="__main__")
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime)
"""


@dataclass
class Bench:
    """A running system, ready to be measured."""

    system: System
    redis: RedisServer
    limits: tuple[str, ...] = UNLIMITED
    submit_cpu_s: float = 0.0

    def submit(self, path: Path, *options: str) -> tuple[str, float]:
        """Submit a file; the job's id and the CPU that the command took."""
        command = [
            "producer", "submit", str(path), "--model", "models:/bench/1", "--id-column", "id",
            *self.limits, *options,
        ]  # fmt: skip
        job_id, cpu_s = self.system.python(_SUBMIT.format(command=command)).split()
        return job_id, float(cpu_s)

    def run(self, path: Path, rows: int, *options: str) -> Figures:
        """Measure one job from its submission until it is completed."""
        pids = {f"worker {n}": w.pid for n, w in enumerate(self.system.workers)}
        assert self.redis.process is not None
        pids["Redis"] = self.redis.process.pid
        before = {name: cpu_s_of(pid) for name, pid in pids.items()}
        job_id, submit_s = self.submit(path, *options)
        seconds = self.wait_for(job_id, rows)
        shares = {name: cpu_s_of(pid) - before[name] for name, pid in pids.items()}
        shares["producer"] = max(0.0, submit_s - self.submit_cpu_s)
        return Figures(
            rows=rows,
            seconds=seconds,
            cpu_s=sum(shares.values()),
            peak_mb=max(memory_mb_of(w.pid, "VmHWM") for w in self.system.workers),
            shares=shares,
        )

    def wait_for(self, job_id: str, rows: int) -> float:
        """Wait for a job's end; the seconds from its first claim to its last outcome."""
        key, counts = f"job:{{{job_id}}}", f"job:{{{job_id}}}:counts"
        with self.system.redis() as client:

            def count(name: str) -> int:
                return int(client.hget(counts, name) or 0)

            wait_until(lambda: count("rows_succeeded") >= rows, timeout_s=3600)
            ended_s = time.time()
            started_s = int(client.hget(key, "started_ms") or 0) / 1000
            wait_until(lambda: client.hget(key, "state") == b"completed", timeout_s=600)
        return ended_s - started_s


@contextmanager
def bench(
    simulator: Simulator,
    small: Path,
    *,
    workers: int = 1,
    warm_ups: int = 2,
    limits: tuple[str, ...] = UNLIMITED,
    **settings: str,
) -> Iterator[Bench]:
    """A system with warm workers; ``small`` is a file of a few rows to warm them with."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        redis = RedisServer(folder / "redis")
        redis.start()
        system = System(folder=folder, environment=_environment(folder, redis), simulator=simulator)
        system.environment["OPENAI_BASE_URL"] = simulator.base_url
        made = Bench(system, redis, limits)
        try:
            system.python(_LOG_MODEL)
            for _ in range(workers):
                system.start_worker(**settings)
            for _ in range(warm_ups):
                job_id, made.submit_cpu_s = made.submit(small)
                made.wait_for(job_id, sum(1 for _ in small.open()))
            yield made
        finally:
            system.close()
            redis.kill()


def _environment(folder: Path, redis: RedisServer) -> dict[str, str]:
    ours = ("BATCH_", "OPENAI_", "AZURE_OPENAI", "MLFLOW_")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        "REDIS_URL": redis.url,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "OPENAI_API_KEY": KEY,
        "PYTHONPATH": str(ROOT),
    }
