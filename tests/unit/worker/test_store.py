"""Jobs in Redis: drafts nobody sees, states that change only where they may."""

from __future__ import annotations

import orjson
import pytest
from redis.asyncio import Redis

from flavor.errors import InputError
from tests.unit.worker.making import (
    JOB,
    claim,
    make_ledger,
    make_rows,
    make_spec,
    names,
    submit,
    submit_batches,
)
from worker.codec import encode_rows
from worker.jobs import JobState
from worker.ledger import Refusal
from worker.pending import Pending
from worker.reports import Report, Wait
from worker.status import JobStatus
from worker.store import Store


async def _status(store: Store) -> JobStatus:
    status = await store.status(JOB)
    assert status is not None
    return status


async def test_a_draft_is_invisible(redis: Redis) -> None:
    store = Store(redis)
    await store.begin(make_spec())
    await store.add_batches(JOB, [(0, encode_rows(make_rows(3)))])

    assert await store.status(JOB) is None
    assert await store.statuses() == []
    assert await store.active_jobs() == []
    assert await make_ledger(redis).claim(JOB, "0") is Refusal.NOT_RUNNING


async def test_a_discarded_draft_leaves_nothing(redis: Redis) -> None:
    store = Store(redis)
    await store.begin(make_spec())
    await store.add_batches(JOB, [(n, b"rows") for n in range(600)])
    await store.add_outcomes(JOB, 1, [])

    await store.discard(JOB, 600)

    assert await names(redis) == set()


async def test_a_committed_job_is_queued_with_all_its_batches(redis: Redis) -> None:
    store = await submit_batches(redis, 3)

    status = await _status(store)
    assert status.state is JobState.QUEUED
    assert (status.rows_total, status.rows_done, status.started_ms) == (9, 0, None)
    assert status.created_ms is not None
    assert await store.active_jobs() == [JOB]
    assert sorted(await store.unclaimed(JOB)) == ["0", "1", "2"]
    assert "jobs:drafts" not in await names(redis)


async def test_the_spec_is_read_as_it_was_written(redis: Redis) -> None:
    store = await submit_batches(redis)

    assert await store.spec(JOB) == make_spec()
    assert await store.spec("nobody") is None


async def test_a_file_name_that_is_no_utf8_is_no_obstacle(redis: Redis) -> None:
    """Python gives such names lone surrogates, which no UTF-8 can hold."""
    store = Store(redis)
    spec = make_spec(input_name="caf\udce9.csv")

    await store.begin(spec)

    assert await store.spec(JOB) == spec


async def test_a_job_written_again_forgets_how_it_ended(redis: Redis) -> None:
    store = await submit_batches(redis)
    await store.cancel(JOB)
    await redis.expire(f"job:{{{JOB}}}", 60)
    await redis.hset(f"job:{{{JOB}}}:counts", "rows_cancelled", "3")

    await submit_batches(redis)

    status = await _status(store)
    assert (status.state, status.reason, status.rows_done) == (JobState.QUEUED, None, 0)
    assert await store.ending(JOB) is None
    assert await redis.ttl(f"job:{{{JOB}}}") == -1


async def test_pause_and_unpause(redis: Redis) -> None:
    store = await submit_batches(redis)

    assert await store.pause(JOB, "bad key")
    paused = await _status(store)
    await store.unpause(JOB)
    unpaused = await _status(store)

    assert (paused.state, paused.reason) == (JobState.PAUSED, "bad key")
    assert (unpaused.state, unpaused.reason) == (JobState.IN_PROGRESS, None)


async def test_the_first_reason_for_a_pause_stays(redis: Redis) -> None:
    store = await submit_batches(redis)

    assert await store.pause(JOB, "first")
    assert not await store.pause(JOB, "second")

    assert (await _status(store)).reason == "first"


@pytest.mark.parametrize("state", ["finalizing", "completed", "failed", "cancelled", "draft"])
async def test_what_does_not_run_cannot_be_paused_or_unpaused(redis: Redis, state: str) -> None:
    store = await submit_batches(redis)
    await redis.hset(f"job:{{{JOB}}}", "state", state)
    await redis.expire(f"job:{{{JOB}}}", 60)
    for name in ("queued", "rows:0"):
        await redis.delete(f"job:{{{JOB}}}:{name}")

    is_paused = await store.pause(JOB, "too late")
    await store.unpause(JOB)

    assert not is_paused
    assert await redis.hget(f"job:{{{JOB}}}", "state") == state.encode()


@pytest.mark.parametrize("is_paused", [False, True])
async def test_a_cancelled_job_runs_on_to_its_end(redis: Redis, *, is_paused: bool) -> None:
    """Its workers must see it running, to write the rows off and count the batches."""
    store = await submit_batches(redis)
    if is_paused:
        await store.pause(JOB, "bad key")

    await store.cancel(JOB)

    assert (await _status(store)).state is JobState.IN_PROGRESS
    assert await store.ending(JOB) is JobState.CANCELLED
    assert await claim(make_ledger(redis))


async def test_an_unknown_job_cannot_be_cancelled(redis: Redis) -> None:
    with pytest.raises(InputError, match="unknown to this Redis"):
        await Store(redis).cancel("nobody")


async def test_a_job_that_is_over_cannot_be_cancelled(redis: Redis) -> None:
    store = await submit_batches(redis)
    ledger = make_ledger(redis)
    await ledger.count_off(await claim(ledger), Pending())

    with pytest.raises(InputError, match="finalizing: nothing is left"):
        await store.cancel(JOB)
    await ledger.finish(await claim(ledger, "final"), JobState.COMPLETED, {})
    with pytest.raises(InputError, match="completed: nothing is left"):
        await store.cancel(JOB)

    assert await store.ending(JOB) is None


async def test_the_status_sums_what_living_workers_report(redis: Redis) -> None:
    store = await submit_batches(redis)
    said = Report(in_flight=3, rows_per_s=2.0, latencies={7: 1})
    await store.report(JOB, "w1", report=said)
    said = Report(in_flight=4, waiting_for="tokens per minute", latencies={7: 2, 9: 1})
    await store.report(JOB, "w2", report=said)
    silent = {"in_flight": 100, "waiting_for": "nothing", "at_ms": 1}
    await redis.hset(f"job:{{{JOB}}}:workers", "w3", orjson.dumps(silent))

    status = await _status(store)

    assert status.requests.in_flight == 7
    assert status.waiting_for == "tokens per minute"
    assert (status.pace.rows_per_s, status.pace.latencies) == (2.0, {7: 3, 9: 1})
    assert status.pace.waits == {Wait.TOKENS: 0.5}
    assert 0 < await redis.ttl(f"job:{{{JOB}}}:workers") <= 60


async def test_one_worker_alone_samples_in_a_period(redis: Redis) -> None:
    store = await submit_batches(redis)

    answers = [await store.may_sample(JOB, 60_000) for _ in range(3)]

    assert answers == [True, False, False]
    assert 0 < await redis.pttl(f"job:{{{JOB}}}:sampled") <= 60_000


async def test_jobs_are_listed_newest_first_and_forgotten_ones_go(redis: Redis) -> None:
    store = await submit_batches(redis)
    await redis.zadd("jobs", {JOB: 1, "expired": 2})
    await store.begin(make_spec(job_id="newer"))
    await store.add_batches("newer", [(0, b"rows")])
    await store.commit("newer")

    statuses = await store.statuses()

    assert [status.job_id for status in statuses] == ["newer", JOB]
    assert await redis.zscore("jobs", "expired") is None


async def test_a_cancelled_job_is_not_paused_by_a_request_in_flight(redis: Redis) -> None:
    """Paused, nobody could claim its batches, and it would never end."""
    store = await submit_batches(redis)
    await store.cancel(JOB)

    assert not await store.pause(JOB, "bad key")
    assert (await _status(store)).state is JobState.IN_PROGRESS


async def test_batches_are_named_with_their_rows(redis: Redis) -> None:
    """The last one is shorter; one that was struck off has none left."""
    spec = make_spec(rows=5, batches=2)
    store = await submit(redis, spec, [make_rows(3), make_rows(2, first=3)])

    assert await store.unclaimed(JOB) == {"0": 3, "1": 2}
    assert await store.row_counts(JOB, ["1", "7", "final"]) == {"1": 2, "7": None, "final": None}


async def test_a_job_is_resumed_by_one_producer_at_a_time(redis: Redis) -> None:
    store = Store(redis)
    await store.begin(make_spec())

    with pytest.raises(InputError, match="somebody else"):
        await store.begin(make_spec())
