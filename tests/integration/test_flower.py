"""Flower, started as a user starts it: what it says of the batches is readable and true."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from tests.flower import Flower
from tests.system import KEY, System, wait_until

pytestmark = pytest.mark.integration

ROWS = 250
_PROMPT = ("--prompt", "Say: {text}", "--openai-model", "gpt-4o-mini", "--batch-size", "100")


@pytest.fixture
def flower(system: System) -> Iterator[Flower]:
    made = Flower(system)
    yield made
    made.close()


def test_flower_shows_each_batch_with_its_job_number_and_rows(
    system: System, flower: Flower
) -> None:
    path = system.folder / "rows.txt"
    path.write_text("".join(f"SECRETTEXT {number}\n" for number in range(ROWS)))
    submitted = system.producer("submit", str(path), *_PROMPT, "--run-name", "my reviews")
    job_id = submitted.stdout.strip()

    assert flower.waiting() == 3  # of whatever priority: ours is not kombu's default

    system.start_worker()
    watched = system.producer("watch", job_id)
    wait_until(lambda: len(flower.results()) == 4)

    assert watched.returncode == 0, watched.stderr
    assert flower.waiting() == 0
    tasks = flower.tasks()
    assert {task["state"] for task in tasks} == {"SUCCESS"}
    assert sorted(task["args"] for task in tasks) == [
        "('my reviews', batch 0, 100 rows)",
        "('my reviews', batch 1, 100 rows)",
        "('my reviews', batch 2, 50 rows)",
        "('my reviews', final, 250 rows)",
    ]
    assert sorted(flower.results()) == [
        "done: 100 succeeded, 0 dead (my reviews, batch 0, 100 rows)",
        "done: 100 succeeded, 0 dead (my reviews, batch 1, 100 rows)",
        "done: 50 succeeded, 0 dead (my reviews, batch 2, 50 rows)",
        "done: completed (my reviews, final, 250 rows)",
    ]
    seen = flower.text("/api/tasks") + flower.text("/tasks") + flower.text("/metrics")
    assert "SECRETTEXT" not in seen
    assert KEY not in seen
    succeeded = re.findall(r'flower_events_total\{.*type="task-succeeded".*\} (\S+)', seen)
    assert sum(map(float, succeeded)) == 4


def test_a_batch_that_waits_or_is_given_back_is_no_failure(system: System, flower: Flower) -> None:
    """It waits for a limit: STARTED. Its worker is asked to stop: given back, and so it says."""
    path = system.folder / "rows.txt"
    path.write_text("".join(f"row {number}\n" for number in range(50)))
    job_id = system.producer("submit", str(path), *_PROMPT, "--rpm", "60").stdout.strip()
    worker = system.start_worker()
    wait_until(lambda: [t for t in flower.tasks() if t["state"] == "STARTED"])
    wait_until(lambda: system.simulator.stats()["accepted"] > 0)

    assert [task["state"] for task in flower.tasks()] == ["STARTED"]

    worker.terminate()
    assert worker.wait(30) == 0
    wait_until(flower.results)

    first, *others = flower.results()
    assert re.fullmatch(
        r"released: \d+ succeeded, 0 dead, shutdown \(rows.txt · gpt-4o-mini, batch 0, 50 rows\)",
        first,
    )
    # There are others where the stopping worker met its own message again.
    assert all(result.startswith(("released: ", "refused: ")) for result in others), others
    # Of the message that went back Flower knows only if the stopping worker could still tell it.
    assert {task["state"] for task in flower.tasks()} <= {"SUCCESS", "PENDING"}
    assert system.redis().zcard(f"job:{{{job_id}}}:queued") == 1
    wait_until(lambda: flower.waiting() == 1)  # published again, before all new ones


def test_flower_listens_on_loopback_unless_told_otherwise(flower: Flower) -> None:
    """Flower's own default is every address, and no password."""
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", flower.port)) == 0
    with socket.socket() as probe:
        # Another address of this machine: whoever listens on all of them answers there.
        assert probe.connect_ex(("127.0.0.2", flower.port)) != 0
