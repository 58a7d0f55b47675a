"""A worker process for tests: the real one, with fakes behind its doors."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
from celery import Celery
from redis.asyncio import Redis

from flavor.client import Client
from flavor.model import OpenAIModel
from flavor.types import Task
from tests.unit.worker.fakes import FlakyLedger, FolderRuns, ScriptedClient, ScriptedModel
from tests.unit.worker.making import JOB, claim, make_spec, submit_batches
from worker.allowance import Allowances
from worker.breaker import Breakers
from worker.broker import QUEUE, make_app
from worker.codec import decode_outcomes
from worker.lanes import Lanes
from worker.open_batch import OpenBatch
from worker.process import Process
from worker.schedule import Schedule
from worker.settings import Settings
from worker.store import Store


class Worker:
    """One process, and the fakes that stand behind it."""

    def __init__(
        self, process: Process, runs: FolderRuns, client: ScriptedClient, ledger: FlakyLedger
    ) -> None:
        self.process = process
        self.runs = runs
        self.client = client
        self.ledger = ledger

    @property
    def sent(self) -> list[str]:
        """The ids of all rows sent, in order."""
        return [row_id for request in self.client.sent for row_id in request]

    def published(self) -> list[tuple[str, str]]:
        """The messages in the broker's queue, which this empties."""
        return messages(self.process.app)

    def part(self, batch: int) -> Path:
        """Where a batch's part stands in the run."""
        return self.runs.folder / f"outputs/batch-{batch:06d}.parquet"


@asynccontextmanager
async def open_worker(
    redis: Redis,
    folder: Path,
    *,
    client: ScriptedClient | None = None,
    model: Any = None,
    **settings: Any,
) -> AsyncIterator[Worker]:
    """A process that works on ``redis`` and keeps its run in ``folder``; its loops do not run."""
    runs, app = FolderRuns(folder), make_app("memory://")
    messages(app)  # kombu's memory outlives its apps
    async with anyio.create_task_group() as tasks:
        process = Process(Settings(**{"concurrency": 8, **settings}), app, tasks, runs=runs.as_runs)
        process.redis, process.store = redis, Store(redis)
        ledger = FlakyLedger(redis, owner=process.name, lease_s=process.settings.lease_s)
        process.ledger, process.lanes = ledger, Lanes(redis, tasks)
        process.schedule = Schedule(redis)
        process.allowances = Allowances(redis, tasks, name=process.name)
        process.breakers = Breakers(redis, tasks)
        process._client = cast("Client", client or ScriptedClient())
        spec = make_spec()
        key = (spec.model_uri, spec.openai_model, "[]")
        process._models[key] = cast("OpenAIModel", model or ScriptedModel())
        for _ in range(process.slots.size):
            tasks.start_soon(process.slots.serve)
        yield Worker(process, runs, cast("ScriptedClient", process._client), ledger)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_batches(
    redis: Redis, folder: Path, *, batches: int = 1, task: Task = Task.CHAT
) -> AsyncIterator[tuple[Worker, list[OpenBatch]]]:
    """A process that has every batch of a job open."""
    await submit_batches(redis, batches, task=task)
    async with open_worker(redis, folder) as worker:
        opened = []
        for number in range(batches):
            lease = await claim(worker.ledger, str(number))
            batch = OpenBatch(lease, make_spec(task=task), meter=worker.process.meter)
            worker.process.open[JOB, str(number)] = batch
            opened.append(batch)
        yield worker, opened


async def saved(redis: Redis, batch: int = 0) -> dict[int, str | bytes | None]:
    """The outputs in a batch's checkpoint, by the rows' index."""
    blobs = cast("dict[bytes, bytes]", await redis.hgetall(f"job:{{{JOB}}}:outcomes:{batch}"))
    outcomes = [outcome for blob in blobs.values() for outcome in decode_outcomes(blob)]
    return {outcome.index: outcome.output for outcome in outcomes}


def messages(app: Celery) -> list[tuple[str, str]]:
    """What waits in the queue: job id and batch of each message. Empties it."""
    found = []
    with app.connection_for_read() as connection, connection.channel() as channel:
        queue = connection.SimpleQueue(QUEUE)
        queue.close()
        while channel._size(QUEUE):
            body = base64.b64decode(channel._get(QUEUE)["body"])
            args, _, _ = json.loads(body)
            found.append(tuple(args))
    return found
