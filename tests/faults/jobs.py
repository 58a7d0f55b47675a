"""A job to be broken, and what must be true of it afterwards, whatever happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.system import System

PROMPT = ("--prompt", "Say: {text}", "--openai-model", "gpt-4o-mini")


def submit(system: System, rows: Path, *options: str) -> str:
    """Submit a job and return its id."""
    done = system.producer("submit", str(rows), *PROMPT, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for_end(system: System, job_id: str, *, expected: int = 0) -> None:
    """Wait until the job is over, as a user does."""
    watched = system.producer("watch", job_id)
    assert watched.returncode == expected, watched.stderr


def verified(system: System, job_id: str) -> dict[str, Any]:
    """What ``producer verify`` found: one outcome per row, and true totals."""
    done = system.producer("verify", job_id, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def assert_all_succeeded(system: System, job_id: str, rows: int) -> dict[str, Any]:
    """Every row has one outcome, a success; returns what ``verify`` found."""
    found = verified(system, job_id)
    assert found["outcomes"] == rows
    assert system.status(job_id)["rows"]["succeeded"] == rows
    return found
