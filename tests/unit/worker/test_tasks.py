"""The Celery task and its worker: wrong messages are refused, and a start waits for nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("job_id", "batch"),
    [
        (5, "0"),
        (None, "0"),
        ("job1", 0),
        ("job1", None),
        ("job1", ""),
        ("job1", "-1"),
        ("job1", "../../0"),
        ("job1", "0; FLUSHALL"),
        ("job1", "\u0661"),  # a digit, and no ASCII
        ("job1", "1234567890"),
        ({"$gt": ""}, ["0"]),
    ],
)
def test_a_message_of_the_wrong_shape_is_refused(job_id: Any, batch: Any) -> None:
    from worker.tasks import run_batch_task, thread  # reads the environment when it is imported

    assert run_batch_task(job_id, batch) == "refused"
    assert thread.process is None


def test_a_worker_starts_without_others_and_leaves_the_collector_what_is_new() -> None:
    code = """
import gc
from worker.celery import app
from celery.worker.consumer.gossip import Gossip
from celery.worker.consumer.mingle import Mingle
from celery import signals
signals.celeryd_init.send(sender="worker")
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
app.conf.broker_url = "redis://127.0.0.1:1"
print(*(step.compatible_transport(step, app) for step in (Mingle, Gossip)))
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True, capture_output=True, text=True,
    )  # fmt: skip

    assert done.stdout.split() == ["True", "True", "False", "False"]
