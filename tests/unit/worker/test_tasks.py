"""The Celery task: messages of the wrong shape are refused, never executed."""

from __future__ import annotations

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
