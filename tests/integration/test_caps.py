"""What a job may spend and how many requests it may have in flight, over two workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system import System

pytestmark = pytest.mark.integration

ROWS = 400


@pytest.fixture
def rows(system: System) -> Path:
    """Four hundred different texts."""
    path = system.folder / "rows.txt"
    path.write_text("".join(f"row {number} of a few words\n" for number in range(ROWS)))
    return path


def test_a_job_pauses_at_its_cap_and_resume_continues_it_with_a_higher_one(
    system: System, rows: Path
) -> None:
    """Everything that two workers have in flight included, it spends no more than that."""
    system.simulator.configure(latency_s=0.1)
    for _ in range(2):
        system.start_worker(BATCH_CONCURRENCY="20", BATCH_MAX_CONCURRENCY="30")
    cap = 5000
    prompt = ("--prompt", "Say: {text}", "--openai-model", "gpt-4o-mini", "--batch-size", "50")
    submitted = system.producer(
        "submit", str(rows), *prompt, "--max-total-tokens", str(cap), "--wait"
    )
    assert submitted.returncode == 4, submitted.stderr
    job_id = submitted.stdout.strip()
    paused = system.status(job_id)
    spent = system.simulator.stats()["tokens"]["total"]
    refused = system.producer("resume", job_id)
    too_low = system.producer("resume", job_id, "--max-total-tokens", "10")
    resumed = system.producer("resume", job_id, "--max-total-tokens", "1000000", "--wait")

    assert paused["state"] == "paused"
    assert "the cap is reached" in paused["reason"]
    assert f"resume {job_id} --max-total-tokens N" in paused["reason"]
    assert paused["tokens"]["total"] == spent
    assert 0.9 * cap < spent <= 1.02 * cap
    assert (refused.returncode, too_low.returncode) == (1, 1)
    assert "would pause again" in refused.stderr
    assert "used already" in too_low.stderr
    assert resumed.returncode == 0, resumed.stderr
    stats = system.simulator.stats()
    assert system.status(job_id)["rows"]["succeeded"] == ROWS
    assert stats["rows_paid_twice"] == 0
    assert stats["max_in_flight"] <= 30
