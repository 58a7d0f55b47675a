"""A running job's time series: every figure, once a second, whoever of its workers writes it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from tests.unit.worker.making import JOB, claim, make_outcome, make_spec, submit_batches
from tests.unit.worker.processes import Worker, open_worker
from worker.checkpoint import flush
from worker.jobs import Limits
from worker.open_batch import OpenBatch
from worker.reports import Report
from worker.sampling import DENSE_S, PERIOD_MS, Sampler, period_ms
from worker.upkeep import _beat


@asynccontextmanager
async def _working(redis: Redis, folder: Path) -> AsyncIterator[tuple[Worker, OpenBatch]]:
    await submit_batches(redis)
    async with open_worker(redis, folder) as worker:
        batch = OpenBatch(await claim(worker.ledger), make_spec(), meter=worker.process.meter)
        worker.process.open[JOB, "0"] = batch
        yield worker, batch


async def _next_period(redis: Redis) -> None:
    await redis.delete(f"job:{{{JOB}}}:sampled")


async def test_a_point_has_every_figure(redis: Redis, tmp_path: Path) -> None:
    async with _working(redis, tmp_path) as (worker, batch):
        limits = Limits(requests_per_min=500, tokens_per_min=90_000)
        batch.lane = worker.process.lanes.of("endpoint", "gpt-4o-mini", limits, job_id=JOB)
        batch.lane.in_flight = 4
        batch.pending.sent, batch.pending.throttled = 2, 1
        batch.record([make_outcome(0, latency_s=0.25)])
        await flush(worker.process)
        await _beat(worker.process)

        await Sampler(worker.process).turn()

    metrics = worker.runs.metrics
    assert {name: metrics[name] for name in metrics if not name.startswith("latency.")} == {
        **{f"rows.{name}": 0 for name in ("rejected", "exhausted", "cancelled")},
        "rows.succeeded": 1,
        "tokens.prompt": 10,
        "tokens.completion": 5,
        "tokens.total": 15,
        "tokens.cached": 2,
        "tokens.reasoning": 1,
        "requests.sent": 2,
        "requests.answered": 0,
        "requests.retried": 0,
        "requests.throttled": 1,
        "rows.in_doubt": 0,
        "requests.in_flight": 4,
        "throughput.rows_per_s": metrics["throughput.rows_per_s"],
        "limit.requests_per_min": 500,
        "limit.tokens_per_min": 90_000,
    }
    assert metrics["throughput.rows_per_s"] > 0
    assert set(metrics) > {"latency.p50_s", "latency.p95_s", "latency.p99_s"}


async def test_one_of_all_workers_writes_a_point_in_a_period(redis: Redis, tmp_path: Path) -> None:
    async with _working(redis, tmp_path) as (worker, _):
        samplers = [Sampler(worker.process) for _ in range(3)]

        for sampler in samplers:
            await sampler.turn()
        first = worker.runs.metric_calls
        left_ms = await redis.pttl(f"job:{{{JOB}}}:sampled")
        await _next_period(redis)
        for sampler in samplers:
            await sampler.turn()

    assert 0 < left_ms <= PERIOD_MS == 1000
    assert (first, worker.runs.metric_calls) == (1, 2)


async def test_a_wait_is_drawn_also_when_it_is_over(redis: Redis, tmp_path: Path) -> None:
    """Without a zero after it, MLflow's chart would go on at its height."""
    async with _working(redis, tmp_path) as (worker, _):
        sampler, seen = Sampler(worker.process), []
        for words in ("", "tokens per minute", ""):
            report = Report(waiting_for=words)
            await worker.process.store.report(JOB, "w1", report=report)
            await _next_period(redis)
            await sampler.turn()
            seen.append(worker.runs.metrics.get("waiting.tokens_per_min"))

    assert seen == [None, 1.0, 0.0]


async def test_a_job_that_does_not_run_has_no_points(redis: Redis, tmp_path: Path) -> None:
    async with _working(redis, tmp_path) as (worker, _):
        await worker.process.store.pause(JOB, "no quota")

        await Sampler(worker.process).turn()

    assert worker.runs.metric_calls == 0


def test_points_grow_rarer_with_the_jobs_age() -> None:
    """A point a second for a day would be 86,400 of each metric."""
    now_ms, count, age_ms = time.time_ns() // 1_000_000, 0, 0
    while age_ms < 86_400_000:
        age_ms += period_ms(now_ms - age_ms)
        count += 1

    assert period_ms(None) == period_ms(now_ms - DENSE_S * 1000) == PERIOD_MS
    assert count < 4000
