"""One worker process: its caches, its patience, its demand for work, and its thread."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from flavor.errors import InputError, StoreError, TrackingError
from flavor.model import OpenAIModel, PyfuncModel
from tests.unit.worker.fakes import RecordingStop
from tests.unit.worker.making import JOB, make_spec, submit_batches
from tests.unit.worker.processes import open_worker
from worker.broker import make_app
from worker.jobs import Lease
from worker.memory import is_worth_a_look, settle_memory
from worker.open_batch import COMING_S, OpenBatch
from worker.process import SAY_AGAIN_S, Process, ProcessThread
from worker.settings import Settings
from worker.stop import StoppedError, StopReason


class FlakyStep:
    """Raises the errors of its script, then answers."""

    def __init__(self, *script: Exception) -> None:
        self.script = list(script)

    async def __call__(self) -> str:
        if self.script:
            raise self.script.pop(0)
        return "done"


def _open_batch(requests: int) -> OpenBatch:
    batch = OpenBatch(Lease(job_id=JOB, batch="0", fence=1, deliveries=1), make_spec())
    batch.expect(requests)
    return batch


class _Opening(OpenBatch):
    """Another batch is opened while somebody looks at this one."""

    process: Process

    def __getattribute__(self, name: str) -> Any:
        if name == "requests":
            open_batches = object.__getattribute__(self, "process").open
            open_batches[JOB, str(len(open_batches))] = _open_batch(1)
        return object.__getattribute__(self, name)


async def test_a_batch_may_be_opened_while_celerys_thread_asks_for_demand(
    redis: Redis, tmp_path: Path
) -> None:
    async with open_worker(redis, tmp_path) as worker:
        batch = _Opening(Lease(job_id=JOB, batch="0", fence=1, deliveries=1), make_spec())
        batch.process = worker.process
        batch.arrive()
        worker.process.open[JOB, "0"] = batch

        assert worker.process.wanted_batches >= 1


async def test_two_processes_of_a_host_and_pid_are_told_apart(redis: Redis, tmp_path: Path) -> None:
    """Containers on one host's network have its name, and the same first pid: each would overwrite
    what the other holds of a cap and of the permits.
    """
    async with open_worker(redis, tmp_path) as one, open_worker(redis, tmp_path) as other:
        assert one.process.name != other.process.name


async def test_a_step_is_repeated_while_a_service_is_away(
    redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop = RecordingStop()
    step = FlakyStep(StoreError("Redis is away"), TrackingError("MLflow is away"))
    async with open_worker(redis, tmp_path) as worker:
        with caplog.at_level(logging.WARNING):
            answer = await worker.process.patiently(step, stop)

    assert answer == "done"
    assert len(stop.slept) == 2
    assert all(0 < slept_s <= 5 for slept_s in stop.slept)
    assert [record.__dict__["event"] for record in caplog.records] == ["service_awaited"] * 2


async def test_an_outage_is_told_of_now_and_then_however_many_batches_wait(
    redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("worker.process.time", SimpleNamespace(monotonic=lambda: now_s))
    async with open_worker(redis, tmp_path) as worker:
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                away = [StoreError("Redis is away"), TrackingError("MLflow is away")]
                step = FlakyStep(*away * 5)
                await worker.process.patiently(step, RecordingStop())
            told = len(caplog.records)
            now_s += SAY_AGAIN_S
            step = FlakyStep(StoreError("Redis is away"))
            await worker.process.patiently(step, RecordingStop())

    assert (told, len(caplog.records)) == (2, 3)


async def test_patience_never_runs_out_and_stays_bounded(redis: Redis, tmp_path: Path) -> None:
    stop = RecordingStop()
    step = FlakyStep(*[StoreError("away")] * 40)
    async with open_worker(redis, tmp_path) as worker:
        await worker.process.patiently(step, stop)

    assert max(stop.slept) <= 5


async def test_patience_ends_with_the_batch(redis: Redis, tmp_path: Path) -> None:
    stop = RecordingStop()
    stop.set(StopReason.LEASE_LOST)
    async with open_worker(redis, tmp_path) as worker:
        with pytest.raises(StoppedError):
            await worker.process.patiently(FlakyStep(StoreError("away")), stop)


async def test_other_errors_are_not_waited_for(redis: Redis, tmp_path: Path) -> None:
    stop = RecordingStop()
    async with open_worker(redis, tmp_path) as worker:
        with pytest.raises(InputError):
            await worker.process.patiently(FlakyStep(InputError("bad")), stop)

    assert stop.slept == []


async def test_a_spec_is_read_once(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)
    async with open_worker(redis, tmp_path) as worker:
        first = await worker.process.spec(JOB)
        await redis.delete(f"job:{{{JOB}}}")

        assert await worker.process.spec(JOB) is first
        assert await worker.process.spec("nobody") is None


async def test_one_prompt_with_two_openai_models_is_two_models(
    redis: Redis, tmp_path: Path
) -> None:
    """They share a URI; sharing the model would bill the one at the other's price."""
    async with open_worker(redis, tmp_path) as worker:
        process, spec = worker.process, make_spec()
        process._models[spec.model_uri, "another", "[]"] = other = cast("Any", object())

        model = await process.model(dataclasses.replace(spec, openai_model="another"))

        assert model is other
        assert await process.model(spec) is not other


async def test_a_process_keeps_the_models_used_last(redis: Redis, tmp_path: Path) -> None:
    async with open_worker(redis, tmp_path, models=2) as worker:
        process = worker.process
        ours = await process.model(make_spec())
        process._models["another", None, "[]"] = ours

        await process.model(make_spec())

        assert [uri for uri, _, _ in process._models] == ["another", make_spec().model_uri]
        assert await process.model(make_spec()) is ours


def test_the_collector_looks_no_more_at_what_stays() -> None:
    """Each look held the event loop up for 0.2 s."""
    threshold = gc.get_threshold()
    try:
        settle_memory()
        looked_at = len(gc.get_objects())
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)

    assert looked_at < 0.1 * len(gc.get_objects())


def test_a_job_begins_without_a_look_at_all_memory() -> None:
    """It took 0.3 s. What went with a pyfunc must be found all the same."""
    pyfunc, ours = object.__new__(PyfuncModel), object.__new__(OpenAIModel)

    assert not is_worth_a_look(ours, [ours])
    assert is_worth_a_look(ours, [])
    assert is_worth_a_look(ours, [ours, pyfunc])
    assert is_worth_a_look(pyfunc, [ours])


async def test_a_worker_without_a_key_says_so(redis: Redis, tmp_path: Path) -> None:
    async with open_worker(redis, tmp_path) as worker:
        worker.process._client = None

        with pytest.raises(InputError, match="OPENAI_API_KEY"):
            await worker.process.client()


@pytest.mark.parametrize(
    ("opened", "waiting", "wanted"),
    [
        ([], 0, 1),  # nothing is known of batches yet: one of them may fill all slots
        ([4, 4], 0, 25),  # a hundred slots are a refill of 25 batches of 4
        ([4, 4], 60, 10),
        ([4, 4], 100, 0),
        ([500], 0, 1),
        ([4] * 62, 0, 2),  # 64 may be open
        ([4] * 64, 0, 0),
    ],
)
async def test_a_process_wants_as_many_batches_as_refill_its_slots(
    redis: Redis, tmp_path: Path, opened: list[int], waiting: int, wanted: int
) -> None:
    async with open_worker(redis, tmp_path, concurrency=100) as worker:
        process = worker.process
        process.open = {(JOB, str(n)): _open_batch(size) for n, size in enumerate(opened)}
        for _ in range(waiting):
            process.slots.put(asyncio.Event().wait, job_id=JOB)  # type: ignore[arg-type]

        assert process.wanted_batches == wanted

        process.stopping.set(StopReason.SHUTDOWN)
        assert process.wanted_batches == 0


async def test_what_is_still_being_fetched_is_not_claimed_again_and_again(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every 20 ms a process looks; a model takes a second to load, or a minute."""
    now_s = [time.monotonic()]
    monkeypatch.setattr("worker.open_batch.time.monotonic", lambda: now_s[0])
    lease = Lease(job_id=JOB, batch="9", fence=1, deliveries=1)
    async with open_worker(redis, tmp_path, concurrency=100) as worker:
        process = worker.process
        first = OpenBatch(lease, make_spec())
        process.open = {(JOB, "9"): first}
        assert process.wanted_batches == 0  # it may fill all slots

        process.open[JOB, "0"] = _open_batch(40)
        while_it_comes = process.wanted_batches
        process.open[JOB, "8"] = second = OpenBatch(lease, make_spec())
        process.open[JOB, "7"] = third = OpenBatch(lease, make_spec())
        while_three_come = process.wanted_batches
        second.arrive()
        third.arrive()
        while_it_is_left = process.wanted_batches
        now_s[0] += COMING_S
        when_it_takes_long = process.wanted_batches

    assert (while_it_comes, while_three_come, while_it_is_left, when_it_takes_long) == (1, 0, 1, 2)


def test_all_calls_run_on_one_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second ``asyncio.run`` would find the clients of the first one closed."""
    settings = Settings()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody is asked
    started: list[Process] = []

    async def upkeep(process: Process) -> None:
        started.append(process)

    async def loop_of(process: Process) -> tuple[Process, asyncio.AbstractEventLoop]:
        return process, asyncio.get_running_loop()

    thread = ProcessThread(settings, make_app("memory://"), (upkeep,))
    thread.stop()  # nothing runs yet

    first, second = thread.run(loop_of), thread.run(loop_of)
    thread.stop()

    assert first == second
    assert started == [first[0]] == [thread.process]
    assert first[1].is_closed()
