"""A pilot tells what the whole file takes, and its rows are not paid a second time."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest

from tests.system import System

pytestmark = pytest.mark.integration

ROWS, PILOT_ROWS = 500, 60
_MODEL = ("--prompt", "Say: {text}", "--openai-model", "gpt-4o-mini", "--batch-size", "100")


@pytest.fixture
def texts(system: System) -> Path:
    """Five hundred different texts of very different lengths."""
    path = system.folder / "rows.txt"
    lines = [f"row {number} {'word ' * (number * number % 97)}\n" for number in range(ROWS)]
    path.write_text("".join(lines))
    return path


def test_the_rows_of_a_pilot_are_paid_once(system: System, texts: Path) -> None:
    system.start_worker()

    piloted = system.producer(
        "estimate", str(texts), *_MODEL, "--pilot", str(PILOT_ROWS), "--workers", "0", "--json"
    )

    assert piloted.returncode == 0, piloted.stderr
    estimate = json.loads(piloted.stdout)
    pilot = estimate["pilot"]
    assert (estimate["rows"]["total"], pilot["rows"]) == (ROWS, PILOT_ROWS)
    assert system.simulator.stats()["accepted"] == PILOT_ROWS

    other = system.producer("submit", str(texts), *_MODEL, "--param", "temperature=1",
                            "--pilot-of", pilot["job_id"])  # fmt: skip
    assert other.returncode == 1
    said = "differs in its parameters: none, here {'temperature': 1}"
    assert other.stderr == f"error: pilot {pilot['job_id']} {said}\n"

    done = system.producer("submit", str(texts), *_MODEL, "--pilot-of", pilot["job_id"], "--wait")

    assert done.returncode == 0, done.stderr
    job_id = done.stdout.strip()
    paid, status = system.simulator.stats(), system.status(job_id)
    assert (paid["accepted"], paid["rows_paid_twice"]) == (ROWS, 0)
    assert status["rows"]["succeeded"] == ROWS
    assert status["requests"]["sent"] == ROWS - PILOT_ROWS
    assert status["tokens"]["total"] == paid["tokens"]["total"]
    assert system.producer("verify", job_id).returncode == 0
    # Lengths differ 100-fold, and answers do, too: 1 % is what a count of the prompts leaves open.
    prompts = pilot["tokens"]["prompt"]
    assert prompts["estimate"] == pytest.approx(paid["tokens"]["prompt"], rel=0.01)
    assert prompts["high"] - prompts["low"] < 0.03 * prompts["estimate"]
    mlflow.set_tracking_uri(system.tracking_uri)
    tags = mlflow.MlflowClient().get_run(job_id).data.tags
    assert tags["batch.pilot_of"] == pilot["job_id"]
    assert tags["batch.pilot_rows"] == str(PILOT_ROWS)


def test_the_limits_that_a_pilots_answers_told_say_how_long_all_rows_take(
    system: System, texts: Path
) -> None:
    system.simulator.configure(rpm=1200)
    system.start_worker()

    piloted = system.producer(
        "estimate", str(texts), *_MODEL, "--pilot", str(PILOT_ROWS), "--workers", "0", "--json"
    )

    assert piloted.returncode == 0, piloted.stderr
    estimate = json.loads(piloted.stdout)
    assert (estimate["limits"]["requests_per_min"], estimate["time_s"]) == (None, None)
    pilot = estimate["pilot"]
    assert pilot["limits"]["requests_per_min"] == 1200
    assert (pilot["time_s"]["low"], pilot["bound_by"]) == (ROWS / 20, "requests_per_min")


def test_a_wiped_redis_does_not_make_a_pilots_rows_be_paid_again(
    system: System, texts: Path
) -> None:
    """Any job over the input is a pilot, also the first rows alone."""
    worker = system.start_worker()
    first = system.producer("submit", str(texts), *_MODEL, "--limit", "150", "--wait")
    assert first.returncode == 0, first.stderr
    worker.terminate()
    worker.wait(30)
    submitted = system.producer("submit", str(texts), *_MODEL, "--pilot-of", first.stdout.strip())
    assert submitted.returncode == 0, submitted.stderr
    system.redis().flushall()
    system.start_worker()

    resumed = system.producer("resume", submitted.stdout.strip(), "--wait")

    assert resumed.returncode == 0, resumed.stderr
    paid = system.simulator.stats()
    assert (paid["accepted"], paid["rows_paid_twice"]) == (ROWS, 0)
    assert system.status(submitted.stdout.strip())["rows"]["succeeded"] == ROWS
