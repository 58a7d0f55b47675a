"""What goes wrong inside a batch: garbage in Redis, batches that kill, errors nobody foresaw."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis

from flavor.errors import InputError, JobError, RowError
from flavor.types import Request, Task
from tests.unit.worker.fakes import ScriptedClient, Step, answer_of, answers
from tests.unit.worker.making import (
    JOB,
    claim,
    end_lease,
    error_info,
    make_dead,
    make_ledger,
    make_outcome,
    make_spec,
    submit_batches,
)
from tests.unit.worker.processes import open_worker, saved
from worker.batch import BatchEnd, run_batch
from worker.final import run_final
from worker.inputs import InputWriter
from worker.jobs import FINAL, JobState, Lease, Verdict
from worker.ledger import Refusal
from worker.open_batch import OpenBatch
from worker.parts import read_outcomes
from worker.pending import Pending
from worker.stop import StopReason
from worker.store import Store


async def test_rows_of_the_wrong_form_pause_the_job(redis: Redis, tmp_path: Path) -> None:
    store = await submit_batches(redis)
    await redis.set(f"job:{{{JOB}}}:rows:0", b"\x80\x04\x95 no batch of ours")
    async with open_worker(redis, tmp_path) as worker:
        with pytest.raises(InputError, match="in Redis is broken"):
            await run_batch(worker.process, JOB, "0")

    status = await store.status(JOB)
    assert status is not None
    assert status.state is JobState.PAUSED
    assert worker.sent == []


async def test_an_outcome_of_the_wrong_form_pauses_the_job(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)
    await redis.hset(f"job:{{{JOB}}}:outcomes:0", "0", b"garbage")
    async with open_worker(redis, tmp_path) as worker:
        with pytest.raises(InputError, match="in Redis is broken"):
            await run_batch(worker.process, JOB, "0")

    assert worker.sent == []


async def test_a_batch_that_keeps_killing_its_workers_is_set_aside(
    redis: Redis, tmp_path: Path
) -> None:
    """Its rows are dead, but for those that have an outcome; nothing is sent."""
    await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    await ledger.checkpoint([(lease, Pending([make_outcome(0)]))])
    for _ in range(4):
        await end_lease(redis)
        await claim(ledger)
    await end_lease(redis)
    async with open_worker(redis, tmp_path, max_deliveries=5) as worker:
        end = (await run_batch(worker.process, JOB, "0")).end

    outcomes = read_outcomes(worker.part(0))
    assert end is BatchEnd.DONE
    assert worker.sent == []
    assert [o.verdict for o in outcomes] == [Verdict.SUCCEEDED, *[Verdict.EXHAUSTED] * 2]
    assert outcomes[1].error is not None
    assert outcomes[1].error.type == "BatchSetAside"
    assert "5 workers died" in outcomes[1].error.message


async def test_an_error_nobody_foresaw_keeps_what_was_paid_for(
    redis: Redis, tmp_path: Path
) -> None:
    """The outcomes of the other rows used to go with it."""
    await submit_batches(redis)
    client = ScriptedClient(answers(1), ZeroDivisionError("a bug"))
    async with open_worker(redis, tmp_path, client=client, concurrency=1) as worker:
        with pytest.raises(ZeroDivisionError):
            await run_batch(worker.process, JOB, "0")

        assert worker.process.open == {}

    assert worker.sent == ["r0", "r1"]
    assert await redis.hlen(f"job:{{{JOB}}}:outcomes:0") == 1


async def test_an_error_nobody_foresaw_leaves_the_slots_to_the_next_batch(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis, 2)
    client = ScriptedClient(ZeroDivisionError("a bug"))
    async with open_worker(redis, tmp_path, client=client, concurrency=1) as worker:
        with pytest.raises(ZeroDivisionError):
            await run_batch(worker.process, JOB, "0")

        assert (await run_batch(worker.process, JOB, "1")).end is BatchEnd.DONE


@pytest.mark.parametrize("task", [Task.CHAT, Task.EMBEDDINGS])
async def test_a_lease_lost_while_the_part_is_written_changes_nothing(
    redis: Redis, tmp_path: Path, task: Task
) -> None:
    """The other worker has the batch by then, with all outcomes that the part has: of vectors only
    where a row is dead, which an API that is asked again might not be.
    """
    await submit_batches(redis, task=task)
    another = make_ledger(redis, "another")
    client = ScriptedClient(RowError(error_info("refused")), answer=answer_of(task))
    async with open_worker(redis, tmp_path, client=client, concurrency=1) as worker:
        worker.ledger.meanwhile = partial(_overtake, redis, "0")
        end = (await run_batch(worker.process, JOB, "0")).end

        assert worker.published() == []

    assert end is BatchEnd.LOST
    assert await another.claim(JOB, "0") is Refusal.HELD
    in_the_part = {o.index: o.output for o in read_outcomes(worker.part(0))}
    assert await saved(redis) == in_the_part
    assert in_the_part[0] is None
    assert None not in (in_the_part[1], in_the_part[2])


async def test_a_pause_stops_all_batches_of_the_job_and_no_other_job(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis)
    client = ScriptedClient(JobError(error_info("bad key")))
    async with open_worker(redis, tmp_path, client=client, concurrency=1) as worker:
        mine, other = _open_batch(JOB), _open_batch("job2")
        worker.process.open |= {(JOB, "1"): mine, ("job2", "0"): other}

        await run_batch(worker.process, JOB, "0")

    assert mine.sending.reason is StopReason.PAUSED
    assert other.sending.reason is None


async def test_a_worker_whose_redis_is_gone_for_good_saves_what_was_paid_for_in_the_run(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis)
    async with open_worker(redis, tmp_path, concurrency=1, parent_pid=1) as worker:
        worker.ledger.failures = 10**6

        def end_all(request: Request) -> Step:
            batch = worker.process.open[JOB, "0"]
            batch.sending.set(StopReason.SHUTDOWN)
            batch.holding.set(StopReason.SHUTDOWN)
            return answers(request.rows)

        worker.client.answer = end_all
        end = (await run_batch(worker.process, JOB, "0")).end

    assert end is BatchEnd.RELEASED
    (rescued,) = (tmp_path / "rescued").iterdir()
    assert [outcome.row_id for outcome in read_outcomes(rescued)] == ["r0"]


def _open_batch(job_id: str) -> OpenBatch:
    return OpenBatch(Lease(job_id=job_id, batch="1", fence=1, deliveries=1), make_spec())


@pytest.mark.parametrize("ending", [None, JobState.CANCELLED])
async def test_the_finalizer_ends_the_run_and_the_job(
    redis: Redis, tmp_path: Path, ending: JobState | None
) -> None:
    store = await submit_batches(redis)
    if ending:
        await store.cancel(JOB)
    async with open_worker(redis, tmp_path) as worker:
        await run_batch(worker.process, JOB, "0")
        _write_input(worker.runs.folder)

        first = await run_final(worker.process, JOB)
        again = await run_final(worker.process, JOB)

    status = await store.status(JOB)
    assert (first.end, again.end) == (BatchEnd.DONE, BatchEnd.REFUSED)
    assert status is not None
    assert status.state is (ending or JobState.COMPLETED)
    assert status.rows_done == 3
    assert worker.runs.statuses == ["KILLED" if ending else "FINISHED"]


async def test_a_finalizer_that_lost_its_lease_does_not_end_the_job(
    redis: Redis, tmp_path: Path
) -> None:
    store = await submit_batches(redis)
    async with open_worker(redis, tmp_path) as worker:
        await run_batch(worker.process, JOB, "0")
        _write_input(worker.runs.folder)
        worker.ledger.meanwhile = partial(_overtake, redis, FINAL)
        end = (await run_final(worker.process, JOB)).end

    status = await store.status(JOB)
    assert end is BatchEnd.LOST
    assert status is not None
    assert status.state is JobState.FINALIZING


async def test_nobody_finalizes_a_job_that_runs(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)
    async with open_worker(redis, tmp_path) as worker:
        assert (await run_final(worker.process, JOB)).end is BatchEnd.REFUSED
        assert (await run_final(worker.process, "nobody")).end is BatchEnd.REFUSED


async def test_a_rejected_row_stays_rejected_in_the_next_delivery(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    await ledger.checkpoint([(lease, Pending([make_dead(1)]))])
    await ledger.release(lease)
    async with open_worker(redis, tmp_path) as worker:
        await run_batch(worker.process, JOB, "0")

    assert worker.sent == ["r0", "r2"]
    assert read_outcomes(worker.part(0))[1].verdict is Verdict.REJECTED


async def test_a_spec_of_another_version_pauses_the_job_unclaimed(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis)
    spec = {**json.loads(make_spec().to_json()), "from_the_future": 1}
    await redis.hset(f"job:{{{JOB}}}", "spec", json.dumps(spec))
    async with open_worker(redis, tmp_path) as worker:
        with pytest.raises(InputError, match="from_the_future"):
            await run_batch(worker.process, JOB, "0")

    assert await redis.hget(f"job:{{{JOB}}}", "state") == b"paused"
    assert "0" in await Store(redis).unclaimed(JOB)


async def _overtake(redis: Redis, batch: str) -> None:
    """The lease ends, and another worker has the batch."""
    await end_lease(redis, batch)
    await claim(make_ledger(redis, "another"), batch)


def _write_input(folder: Path) -> None:
    """The finalizer reads the input of the rows it shows."""
    (folder / "input").mkdir()
    with InputWriter(folder / "input") as writer:
        writer.write(
            first_index=0,
            row_ids=["r0", "r1", "r2"],
            sources=["a.csv"] * 3,
            lines=[1, 2, 3],
            rows=[b"{}"] * 3,
        )


async def test_a_batch_claimed_while_the_worker_stops_is_given_back_unsent(
    redis: Redis, tmp_path: Path
) -> None:
    await submit_batches(redis)
    async with open_worker(redis, tmp_path) as worker:
        claim = worker.process.ledger.claim

        async def claim_and_stop(job_id: str, batch: str) -> Lease | Refusal:
            lease = await claim(job_id, batch)
            worker.process.stopping.set(StopReason.SHUTDOWN)
            return lease

        worker.process.ledger.claim = claim_and_stop  # type: ignore[method-assign]
        end = (await run_batch(worker.process, JOB, "0")).end

    assert end is BatchEnd.RELEASED
    assert worker.sent == []
    assert await Store(redis).unclaimed(JOB) == {"0": 3}


async def test_a_batch_that_is_still_open_here_is_not_opened_twice(
    redis: Redis, tmp_path: Path
) -> None:
    """After an outage longer than a lease, the message of a worker's own batch comes to itself."""
    await submit_batches(redis)
    async with open_worker(redis, tmp_path) as worker:
        first = OpenBatch(await claim(worker.process.ledger, "0"), make_spec())
        worker.process.open[JOB, "0"] = first
        await end_lease(redis, "0")

        end = (await run_batch(worker.process, JOB, "0")).end

        assert end is BatchEnd.REFUSED
        assert worker.process.open[JOB, "0"] is first
        assert not worker.process.too_late


async def test_a_message_that_meets_its_batch_while_this_worker_gives_it_back_is_handed_on(
    redis: Redis, tmp_path: Path
) -> None:
    """It was published for the others; dropped, the batch would wait for the reaper."""
    await submit_batches(redis)
    async with open_worker(redis, tmp_path) as worker:
        lease = await claim(worker.process.ledger, "0")
        worker.process.open[JOB, "0"] = OpenBatch(lease, make_spec())
        await worker.process.ledger.release(lease)
        worker.process.stopping.set(StopReason.SHUTDOWN)

        end = (await run_batch(worker.process, JOB, "0")).end

        assert end is BatchEnd.REFUSED
        assert worker.process.too_late == {(JOB, "0")}


async def test_a_run_that_cannot_be_finalized_ends_as_failed(redis: Redis, tmp_path: Path) -> None:
    await submit_batches(redis)
    async with open_worker(redis, tmp_path, max_deliveries=1) as worker:
        await run_batch(worker.process, JOB, "0")
        await claim(worker.process.ledger, FINAL)
        await end_lease(redis, FINAL)

        end = (await run_final(worker.process, JOB)).end

    status = await Store(redis).status(JOB)
    assert end is BatchEnd.DONE
    assert status is not None
    assert status.state is JobState.FAILED
    assert worker.runs.statuses == ["FAILED"]
