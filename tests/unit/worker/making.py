"""Values that the worker's tests work with: small jobs, their rows and outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from flavor.errors import ErrorInfo
from flavor.types import Row, Task, Usage
from worker.codec import encode_rows
from worker.jobs import JobSpec, Lease, Outcome, Verdict
from worker.ledger import Ledger, Refusal
from worker.store import Store

JOB = "job1"
USAGE = Usage(
    prompt_tokens=10, completion_tokens=5, total_tokens=15, cached_tokens=2, reasoning_tokens=1
)


def make_spec(**changes: Any) -> JobSpec:
    """A job of one batch of three rows, but for ``changes``."""
    values: dict[str, Any] = {
        "job_id": JOB,
        "name": "reviews",
        "model_uri": "models:/sentiment/3",
        "model_uri_given": "models:/sentiment@champion",
        "model_id": "m-1",
        "task": Task.CHAT,
        "openai_model": "gpt-4o-mini",
        "rows": 3,
        "batches": 1,
        "batch_size": 3,
        "input_name": "reviews.csv",
        "input_sha256": "0" * 64,
        "created_at": "2026-11-22T10:00:00Z",
    }
    return JobSpec(**{**values, **changes})


def make_rows(count: int, *, first: int = 0, **values: Any) -> list[Row]:
    """Rows ``r0``, ``r1`` … with a text each."""
    return [
        Row(row_id=f"r{index}", index=index, values={"text": f"text {index}", **values})
        for index in range(first, first + count)
    ]


def make_outcome(index: int, **changes: Any) -> Outcome:
    """A success with usage, but for ``changes``."""
    values: dict[str, Any] = {
        "row_id": f"r{index}",
        "index": index,
        "verdict": Verdict.SUCCEEDED,
        "output": f"answer {index}",
        "usage": USAGE,
        "attempts": 1,
    }
    return Outcome(**{**values, **changes})


def make_dead(index: int, verdict: Verdict = Verdict.REJECTED) -> Outcome:
    """A dead row, which has an error and neither output nor usage."""
    info = ErrorInfo(type="BadRequest", message="refused", status=400, code="bad")
    return make_outcome(index, verdict=verdict, output=None, usage=None, error=info)


def error_info(message: str = "it failed", **changes: Any) -> ErrorInfo:
    """What a scripted error says."""
    return ErrorInfo(**{"type": "Scripted", "message": message, **changes})


async def submit(redis: Redis, spec: JobSpec, batches: Sequence[Sequence[Row]]) -> Store:
    """Store a job as the producer does, without its messages."""
    store = Store(redis)
    await store.begin(spec)
    payloads = [(number, encode_rows(rows)) for number, rows in enumerate(batches)]
    await store.add_batches(spec.job_id, payloads)
    await store.commit(spec.job_id)
    return store


async def submit_batches(
    redis: Redis, count: int = 1, *, rows: int = 3, task: Task = Task.CHAT
) -> Store:
    """A job of ``count`` batches of ``rows`` rows each."""
    slices = [make_rows(rows, first=rows * number) for number in range(count)]
    spec = make_spec(rows=rows * count, batches=count, batch_size=rows, task=task)
    return await submit(redis, spec, slices)


def make_ledger(redis: Redis, owner: str = "w1", *, lease_s: float = 30) -> Ledger:
    """One worker's view of the ledger."""
    return Ledger(redis, owner=owner, lease_s=lease_s)


async def claim(ledger: Ledger, batch: str = "0") -> Lease:
    """Claim a batch that is known to be free."""
    lease = await ledger.claim(JOB, batch)
    assert not isinstance(lease, Refusal), lease
    return lease


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until ``holds``; fails the test after ten seconds."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + 10
    while not holds():
        assert loop.time() < deadline_s
        await asyncio.sleep(0)


async def end_lease(redis: Redis, batch: str = "0") -> None:
    """Let the lease of a batch have ended, without waiting for it, while workers were alive."""
    await redis.zadd(f"job:{{{JOB}}}:due", {batch: 0}, xx=True)
    seconds, micros = await redis.time()
    steady: Mapping[Any, Any] = {"at_ms": seconds * 1000 + micros // 1000, "resumed_ms": 0}
    await redis.hset("pulse", mapping=steady)
    await redis.expire("pulse", 60)


async def names(redis: Redis) -> set[str]:
    """Every key that Redis holds."""
    return {key.decode() async for key in redis.scan_iter("*")}
