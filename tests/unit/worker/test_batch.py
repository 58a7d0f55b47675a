"""A batch from its message to its part, on real scripts and real slots, with a scripted client."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from flavor.errors import InputError, JobError, RowError
from flavor.types import Request
from tests.unit.worker.fakes import ScriptedClient, ScriptedModel, ScriptedPyfunc, Step, answers
from tests.unit.worker.making import (
    JOB,
    claim,
    end_lease,
    error_info,
    make_ledger,
    make_outcome,
    names,
    submit_batches,
    until,
)
from tests.unit.worker.processes import Worker, open_worker
from worker.batch import BatchEnd, run_batch
from worker.jobs import JobState, Outcome, Verdict
from worker.open_batch import OpenBatch
from worker.parts import read_outcomes
from worker.pending import Pending
from worker.stop import StopReason
from worker.store import Store


async def _state(redis: Redis) -> tuple[JobState, str | None]:
    status = await Store(redis).status(JOB)
    assert status is not None
    return status.state, status.reason


async def test_a_batch_ends_as_a_part_and_is_struck_off(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis, 2)
    async with open_worker(redis, tmp_path) as worker:
        end = (await run_batch(worker.process, JOB, "0")).end
        published = worker.published()

        assert worker.process.open == {}

    outcomes = read_outcomes(worker.part(0))
    assert end is BatchEnd.DONE
    assert [outcome.row_id for outcome in outcomes] == ["r0", "r1", "r2"]
    assert {outcome.verdict for outcome in outcomes} == {Verdict.SUCCEEDED}
    assert published == []
    assert not any(name.endswith(":0") for name in await names(redis))


async def test_nothing_keeps_a_batch_that_has_ended(redis: Redis, tmp_path: Path) -> None:
    """Idle slots did, and a cycle: of embeddings 2 GB, as the garbage collector comes by rarely."""
    await submit_batches(redis, 2)
    async with open_worker(redis, tmp_path) as worker:
        gc.collect()
        gc.disable()
        others = _batches_and_outcomes()
        try:
            await run_batch(worker.process, JOB, "0")
            # A thread lets go of what it was given a moment after it has told of its end.
            await until(lambda: _batches_and_outcomes() <= others)
        finally:
            gc.enable()


def _batches_and_outcomes() -> set[int]:
    return {id(one) for one in gc.get_objects() if isinstance(one, (OpenBatch, Outcome))}


async def test_the_last_batch_asks_for_the_run_to_be_finalized(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis)
    async with open_worker(redis, tmp_path) as worker:
        await run_batch(worker.process, JOB, "0")

        assert worker.published() == [(JOB, "final")]

    assert (await _state(redis))[0] is JobState.FINALIZING


async def test_a_duplicate_message_sends_nothing(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis, 2)
    await claim(make_ledger(redis, "another"), "1")
    async with open_worker(redis, tmp_path) as worker:
        await run_batch(worker.process, JOB, "0")
        ends = [(await run_batch(worker.process, job, n)).end for job, n in _duplicates()]

    assert ends == [BatchEnd.REFUSED] * 3
    assert worker.sent == ["r0", "r1", "r2"]


def _duplicates() -> list[tuple[str, str]]:
    """Struck off, held by another worker, of a job that nobody knows."""
    return [(JOB, "0"), (JOB, "1"), ("nobody", "0")]


async def test_what_has_an_outcome_is_not_sent_again(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)
    former = await claim(make_ledger(redis, "former"))
    saved = make_outcome(1, output="paid for")
    await make_ledger(redis).checkpoint([(former, Pending([saved]))])
    await end_lease(redis)
    async with open_worker(redis, tmp_path) as worker:
        await run_batch(worker.process, JOB, "0")

    assert worker.sent == ["r0", "r2"]
    assert read_outcomes(worker.part(0))[1] == saved


async def test_a_batch_whose_rows_are_all_done_needs_no_model(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)
    former = await claim(make_ledger(redis))
    saved = [make_outcome(index) for index in range(3)]
    await make_ledger(redis).checkpoint([(former, Pending(saved))])
    await end_lease(redis)
    async with open_worker(redis, tmp_path) as worker:
        worker.process._models.clear()
        worker.process._client = None

        assert (await run_batch(worker.process, JOB, "0")).end is BatchEnd.DONE

    assert read_outcomes(worker.part(0)) == saved


async def test_one_bad_row_costs_one_row(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)
    client = ScriptedClient(answers(1), RowError(error_info("bad input")))
    async with open_worker(redis, tmp_path, client=client, concurrency=1) as worker:
        await run_batch(worker.process, JOB, "0")

    verdicts = [outcome.verdict for outcome in read_outcomes(worker.part(0))]
    assert verdicts == [Verdict.SUCCEEDED, Verdict.REJECTED, Verdict.SUCCEEDED]


async def test_packed_rows_and_rows_that_cannot_be_rendered(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis, rows=5)
    model = ScriptedModel(rows_per_request=3)
    model.refused["r2"] = RowError(error_info("no text"))
    async with open_worker(redis, tmp_path, model=model) as worker:
        await run_batch(worker.process, JOB, "0")

    outcomes = read_outcomes(worker.part(0))
    assert sorted(worker.client.sent) == [["r0", "r1", "r3"], ["r4"]]
    assert [o.index for o in outcomes if o.verdict is Verdict.REJECTED] == [2]
    assert len(outcomes) == 5


async def test_a_batch_of_nothing_but_dead_rows_ends(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)
    model = ScriptedModel(rows_per_request=3)
    model.refused = {f"r{n}": RowError(error_info("no text")) for n in range(3)}
    async with open_worker(redis, tmp_path, model=model) as worker:
        assert (await run_batch(worker.process, JOB, "0")).end is BatchEnd.DONE

    assert worker.sent == []


async def test_a_pyfunc_predicts_a_batch_in_one_go(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)
    model = ScriptedPyfunc()
    async with open_worker(redis, tmp_path, model=model) as worker:
        worker.process._client = None  # and no key is in the environment
        await run_batch(worker.process, JOB, "0")

    assert model.asked == [[0, 1, 2]]
    assert [o.output for o in read_outcomes(worker.part(0))] == ["R0", "R1", "R2"]


async def test_an_endpoint_that_refuses_everything_pauses_the_job(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis)
    client = ScriptedClient(answers(1), JobError(error_info("bad key", status=401)))
    async with open_worker(redis, tmp_path, client=client, concurrency=1) as worker:
        end = (await run_batch(worker.process, JOB, "0")).end

        assert worker.published() == []  # its batches wait for ``resume``

    assert end is BatchEnd.RELEASED
    assert await _state(redis) == (JobState.PAUSED, "bad key")
    assert worker.sent == ["r0", "r1"]
    assert await redis.hlen(f"job:{{{JOB}}}:outcomes:0") == 1


async def test_a_resumed_batch_sends_only_what_was_left(redis: Redis, tmp_path: Path) -> None:
    store = await submit_batches(redis)
    client = ScriptedClient(answers(1), JobError(error_info("bad key")))
    async with open_worker(redis, tmp_path, client=client, concurrency=1) as worker:
        await run_batch(worker.process, JOB, "0")
        await store.unpause(JOB)
        client.sent.clear()

        end = (await run_batch(worker.process, JOB, "0")).end

    assert end is BatchEnd.DONE
    assert worker.sent == ["r1", "r2"]


async def test_a_stopping_worker_keeps_what_is_in_flight_and_gives_the_rest_back(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis)
    async with open_worker(redis, tmp_path, concurrency=1) as worker:
        worker.client.answer = _stopping(worker, StopReason.SHUTDOWN)

        end = (await run_batch(worker.process, JOB, "0")).end

        assert worker.published() == [(JOB, "0")]

    assert end is BatchEnd.RELEASED
    assert worker.sent == ["r0"]
    assert await redis.hlen(f"job:{{{JOB}}}:outcomes:0") == 1
    assert (await claim(make_ledger(redis))).deliveries == 1


async def test_a_worker_that_ends_with_its_parent_keeps_its_outcomes_in_the_run_as_well(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis)
    async with open_worker(redis, tmp_path, concurrency=1, parent_pid=1) as worker:
        worker.client.answer = _stopping(worker, StopReason.SHUTDOWN)

        await run_batch(worker.process, JOB, "0")

    (rescued,) = (tmp_path / "rescued").iterdir()
    assert [outcome.row_id for outcome in read_outcomes(rescued)] == ["r0"]


async def test_a_cancelled_batch_keeps_what_is_in_flight_and_cancels_the_rest(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis)
    async with open_worker(redis, tmp_path, concurrency=1) as worker:
        worker.client.answer = _stopping(worker, StopReason.CANCELLED)

        end = (await run_batch(worker.process, JOB, "0")).end

    verdicts = [outcome.verdict for outcome in read_outcomes(worker.part(0))]
    assert end is BatchEnd.DONE
    assert worker.sent == ["r0"]
    assert verdicts == [Verdict.SUCCEEDED, Verdict.CANCELLED, Verdict.CANCELLED]


async def test_a_batch_claimed_after_the_cancellation_sends_nothing(
    redis: Redis, tmp_path: Path
) -> None:
    """It used to send for up to a beat, and to ask for a key that may be why it was cancelled."""
    store = await submit_batches(redis)
    await store.cancel(JOB)
    async with open_worker(redis, tmp_path) as worker:
        worker.process._client = None

        end = (await run_batch(worker.process, JOB, "0")).end

    assert end is BatchEnd.DONE
    assert {o.verdict for o in read_outcomes(worker.part(0))} == {Verdict.CANCELLED}


async def test_a_former_owner_publishes_nothing(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)

    async with open_worker(redis, tmp_path, concurrency=1) as worker:

        def lose(request: Request) -> Step:
            worker.process.open[JOB, "0"].lose()
            return answers(1)

        worker.client.answer = lose
        end = (await run_batch(worker.process, JOB, "0")).end

        assert worker.published() == []

    assert end is BatchEnd.LOST
    assert worker.sent == ["r0"]
    assert not worker.part(0).exists()


@pytest.mark.parametrize(
    ("key", "match"), [("rows:0", "are gone from Redis"), ("model", "OPENAI_API_KEY")]
)
async def test_what_cannot_be_worked_on_here_pauses_the_job(
    redis: Redis, tmp_path: Path, key: str, match: str
) -> None:
    await submit_batches(redis)
    await redis.delete(f"job:{{{JOB}}}:{key}")
    async with open_worker(redis, tmp_path) as worker:
        worker.process._client = None

        with pytest.raises(InputError, match=match):
            await run_batch(worker.process, JOB, "0")

    state, reason = await _state(redis)
    assert state is JobState.PAUSED
    assert match in (reason or "")
    assert list(await Store(redis).unclaimed(JOB)) == ["0"]


def _stopping(worker: Worker, reason: StopReason) -> Callable[[Request], Step]:
    """A client's answer during which the batch is told to stop."""

    def answer(request: Request) -> Step:
        for batch in worker.process.open.values():
            batch.sending.set(reason)
        return answers(request.rows)

    return answer
