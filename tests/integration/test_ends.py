"""Jobs that do not simply run to their end: cancelled, paused, interrupted, resumed, retried."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest

from tests.system import System, wait_until

pytestmark = pytest.mark.integration

ROWS = 600
_PROMPT = ("--prompt", "Say: {text}", "--openai-model", "gpt-4o-mini", "--batch-size", "50")


@pytest.fixture
def rows(system: System) -> Path:
    """Six hundred different texts."""
    path = system.folder / "rows.txt"
    path.write_text("".join(f"row {number}\n" for number in range(ROWS)))
    return path


def _submit(system: System, rows: Path) -> str:
    done = system.producer("submit", str(rows), *_PROMPT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _run_status(system: System, job_id: str) -> str:
    mlflow.set_tracking_uri(system.tracking_uri)
    return str(mlflow.MlflowClient().get_run(job_id).info.status)


def test_cancel_keeps_what_was_in_flight_and_resume_sends_only_the_rest(
    system: System, rows: Path
) -> None:
    system.simulator.configure(latency_s=2.0)  # time enough to cancel, on a slow machine too
    system.start_worker(BATCH_CONCURRENCY="60")
    job_id = _submit(system, rows)
    wait_until(lambda: system.simulator.stats()["accepted"] > 100)

    cancelled = system.producer("cancel", job_id)
    watched = system.producer("watch", job_id)

    assert cancelled.returncode == 0, cancelled.stderr
    assert watched.returncode == 4, watched.stderr
    status = system.status(job_id)
    assert status["state"] == "cancelled"
    assert status["rows"]["succeeded"] == system.simulator.stats()["accepted"] < ROWS
    assert status["rows"]["succeeded"] + status["rows"]["cancelled"] == ROWS
    assert _run_status(system, job_id) == "KILLED"

    system.simulator.configure(latency_s=0.01)
    resumed = system.producer("resume", job_id, "--wait")

    assert resumed.returncode == 0, resumed.stderr
    assert system.status(job_id)["rows"]["succeeded"] == ROWS
    assert system.simulator.stats()["rows_paid_twice"] == 0
    assert _run_status(system, job_id) == "FINISHED"
    metrics = mlflow.MlflowClient().get_run(job_id).data.metrics
    assert (metrics["rows.succeeded"], metrics["rows.cancelled"]) == (ROWS, 0)


def test_a_refused_key_pauses_the_job_and_burns_no_row(system: System, rows: Path) -> None:
    bad = system.start_worker(OPENAI_API_KEY="invalid")
    job_id = _submit(system, rows)

    watched = system.producer("watch", job_id)

    assert watched.returncode == 4
    status = system.status(job_id)
    assert status["state"] == "paused"
    assert "API key" in status["reason"]
    assert sum(status["rows"][verdict] for verdict in ("rejected", "exhausted", "cancelled")) == 0

    bad.terminate()
    bad.wait(30)
    system.start_worker()
    resumed = system.producer("resume", job_id, "--wait")

    assert resumed.returncode == 0, resumed.stderr
    assert system.status(job_id)["rows"]["succeeded"] == ROWS


def test_retry_sends_the_dead_rows_alone_and_merges_them(system: System) -> None:
    path = system.folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(4)))
    system.simulator.configure(error_rate=1.0)  # of fewer rows than an endpoint that is down fails
    system.start_worker(BATCH_MAX_ATTEMPTS="1")
    done = system.producer("submit", str(path), *_PROMPT, "--wait")
    assert done.returncode == 3, done.stderr
    job_id = done.stdout.strip()

    system.simulator.configure(error_rate=0.0)
    retried = system.producer("retry", job_id, "--wait")

    assert retried.returncode == 0, retried.stderr
    status = system.status(job_id)
    assert status["rows"]["succeeded"] == 4
    assert status["requests"]["sent"] == 8
    assert system.simulator.stats()["accepted"] == 4
    assert system.producer("results", job_id, "--failed").stdout == ""


def test_sigterm_gives_the_batches_back_and_pays_nothing_twice(system: System, rows: Path) -> None:
    system.simulator.configure(latency_s=0.3)
    first = system.start_worker(BATCH_CONCURRENCY="60")
    job_id = _submit(system, rows)
    wait_until(lambda: system.simulator.stats()["accepted"] > 60)

    first.terminate()
    first.wait(30)
    system.start_worker()
    watched = system.producer("watch", job_id)

    assert watched.returncode == 0, watched.stderr
    assert system.simulator.stats()["accepted"] == ROWS
    assert system.simulator.stats()["rows_paid_twice"] == 0


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_local_run_stops_all_of_it_and_resume_finishes_it(
    system: System, rows: Path, sign: signal.Signals
) -> None:
    """Redis and its data are gone; what was paid for stands in the run."""
    with _local_run(system, rows) as run:
        children = _children(run.pid)
        run.send_signal(sign)
        run.wait(30)
    wait_until(lambda: not any(map(_is_alive, children)))
    job_id = (system.folder / "run.err").read_text().partition("job ")[2][:32]

    resumed = system.producer("resume", job_id, without=("REDIS_URL",))

    assert resumed.returncode == 0, resumed.stderr
    assert system.simulator.stats()["accepted"] == ROWS
    assert system.simulator.stats()["rows_paid_twice"] == 0


def test_a_local_run_starts_its_redis_again_and_pays_nothing_twice(
    system: System, rows: Path
) -> None:
    """It waited for ever for a server that nobody else could start."""
    with _local_run(system, rows) as run:
        (server,) = (child for child in _children(run.pid) if "server" in _command_of(child))
        os.kill(server, signal.SIGKILL)
        status = run.wait(120)

    assert status == 0, (system.folder / "run.err").read_text()
    assert system.simulator.stats()["accepted"] == ROWS
    assert system.simulator.stats()["rows_paid_twice"] == 0


@contextmanager
def _local_run(system: System, rows: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A ``producer run`` with a Redis and workers of its own, once it has sent 100 rows.

    Where the test fails meanwhile it is killed, and what it started ends with it.
    """
    system.simulator.configure(latency_s=0.5)
    environment = {k: v for k, v in system.environment.items() if k != "REDIS_URL"}
    command = [sys.executable, "-m", "producer", "run", str(rows), *_PROMPT, "--concurrency", "60"]
    with (system.folder / "run.err").open("wb") as log:
        run = subprocess.Popen(
            command, cwd=system.folder, env=environment, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            wait_until(lambda: system.simulator.stats()["accepted"] > 100)
            yield run
        finally:
            if run.poll() is None:
                run.kill()
                run.wait()


def _command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def _children(pid: int) -> list[int]:
    listed = subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return [int(child) for child in listed.split()]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
