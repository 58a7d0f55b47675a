"""Leases: who has a batch, who may write, and when it is struck off."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from redis.asyncio import Redis

from flavor.errors import LeaseLostError
from tests.unit.worker.making import (
    JOB,
    claim,
    end_lease,
    make_ledger,
    make_outcome,
    names,
    submit_batches,
)
from worker import keys
from worker.codec import decode_rows
from worker.jobs import FINAL, JobState, Lease
from worker.keys import FINISHED_TTL_S
from worker.ledger import CountOff, Refusal
from worker.pending import Pending
from worker.redis_client import run_script, server_id
from worker.reports import Report


async def test_two_claims_at_once_give_one_lease(redis: Redis) -> None:
    await submit_batches(redis)
    ledgers = [make_ledger(redis, f"w{n}") for n in range(5)]

    replies = await asyncio.gather(*(ledger.claim(JOB, "0") for ledger in ledgers))

    assert sum(isinstance(reply, Lease) for reply in replies) == 1
    assert replies.count(Refusal.HELD) == 4


async def test_a_claim_starts_the_job_and_loads_its_rows(redis: Redis) -> None:
    store = await submit_batches(redis, 2)
    ledger = make_ledger(redis)

    lease = await claim(ledger, "1")
    payload, checkpoint = await ledger.load(lease)

    status = await store.status(JOB)
    assert status is not None
    assert status.state is JobState.IN_PROGRESS
    assert status.started_ms is not None
    assert payload is not None
    assert [row.row_id for row in decode_rows(payload)] == ["r3", "r4", "r5"]
    assert checkpoint == []


async def test_a_claim_of_an_unknown_job_is_refused(redis: Redis) -> None:
    assert await make_ledger(redis).claim("nobody", "0") is Refusal.GONE


async def test_a_claim_of_an_unknown_batch_is_refused_as_done(redis: Redis) -> None:
    await submit_batches(redis)

    assert await make_ledger(redis).claim(JOB, "7") is Refusal.DONE


async def test_a_claim_of_a_paused_job_is_refused(redis: Redis) -> None:
    store = await submit_batches(redis)
    await store.pause(JOB, "no key")

    assert await make_ledger(redis).claim(JOB, "0") is Refusal.NOT_RUNNING


async def test_a_lease_that_ended_can_be_claimed_before_any_reaper_looks(redis: Redis) -> None:
    await submit_batches(redis)
    former = await claim(make_ledger(redis, "w1"))
    await end_lease(redis)

    latter = await claim(make_ledger(redis, "w2"))

    assert latter.fence > former.fence
    assert latter.deliveries == 2
    assert not (await make_ledger(redis).renew([former]))[0].is_held


async def test_a_short_lease_ends_by_itself(redis: Redis) -> None:
    """No score is rewritten here: the server's own clock ends the lease."""
    await submit_batches(redis)
    ledger = make_ledger(redis, lease_s=0.05)
    await claim(ledger)

    taken: list[str] = []
    with anyio.fail_after(10):
        while not taken:
            await ledger.pulse()
            taken = await ledger.expired(JOB)

    assert taken == ["0"]
    assert await ledger.expired(JOB) == []


async def test_after_a_silence_of_all_workers_leases_can_be_renewed_before_any_is_taken(
    redis: Redis,
) -> None:
    """Redis was away: every lease has ended, though all workers live and wait for it."""
    await submit_batches(redis)
    ledger, other = make_ledger(redis), make_ledger(redis, "w2")
    lease = await claim(ledger)
    await end_lease(redis)
    await redis.hset(keys.PULSE, "at_ms", 1)

    before = await other.expired(JOB)
    claimed_before = await other.claim(JOB, "0")
    await other.pulse()
    after = await other.expired(JOB)
    claimed_after = await other.claim(JOB, "0")

    assert (before, after) == ([], [])
    assert (claimed_before, claimed_after) == (Refusal.HELD, Refusal.HELD)
    assert (await ledger.renew([lease]))[0].is_held


async def test_only_deliveries_that_got_nowhere_count(redis: Redis) -> None:
    await submit_batches(redis)
    ledger = make_ledger(redis)
    for index in range(3):
        lease = await claim(ledger)
        await ledger.checkpoint([(lease, Pending([make_outcome(index)]))])
        await end_lease(redis)
    deliveries = []
    for _ in range(3):
        deliveries.append((await claim(ledger)).deliveries)
        await end_lease(redis)

    assert deliveries == [2, 3, 4]


async def test_a_lease_tells_that_redis_was_restarted_since_the_job_was_submitted(
    redis: Redis,
) -> None:
    await submit_batches(redis, 2)
    same = await claim(make_ledger(redis), "0")
    await redis.hset(keys.job(JOB), "server", "the one before")
    other = await claim(make_ledger(redis), "1")

    assert same.server is None
    assert other.server == await server_id(redis)


async def test_a_renewed_lease_is_not_taken(redis: Redis) -> None:
    await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    await end_lease(redis)

    (renewal,) = await ledger.renew([lease])

    assert renewal.is_held
    assert await ledger.expired(JOB) == []
    assert await make_ledger(redis, "w2").claim(JOB, "0") is Refusal.HELD


async def test_a_lease_renewed_while_a_reaper_looks_is_not_taken(redis: Redis) -> None:
    """The reaper reads what is overdue first, and takes it in a second step."""
    await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    touched = [keys.queued(JOB), keys.due(JOB), keys.batch(JOB, "0"), keys.PULSE]

    assert await run_script(redis, "expire", keys=touched, args=["0", 1]) == 0
    assert await run_script(redis, "expire", keys=touched, args=["7", 1]) == 0

    assert (await ledger.renew([lease]))[0].is_held


async def test_a_renewal_tells_how_the_job_stands(redis: Redis) -> None:
    store = await submit_batches(redis, 2)
    ledger = make_ledger(redis)
    leases = [await claim(ledger, "0"), await claim(ledger, "1")]
    await store.pause(JOB, "no quota")
    paused = await ledger.renew(leases)
    await store.cancel(JOB)
    cancelled = await ledger.renew(leases)
    await redis.delete(f"job:{{{JOB}}}")
    (gone, _) = await ledger.renew(leases)

    assert [r.state for r in paused] == [JobState.PAUSED, JobState.PAUSED]
    assert [r.ending for r in paused] == [None, None]
    assert {r.ending for r in cancelled} == {JobState.CANCELLED}
    assert gone.state is None


async def test_expiry_takes_only_what_is_overdue_and_fences_its_owner_off(redis: Redis) -> None:
    await submit_batches(redis, 2)
    ledger = make_ledger(redis)
    dead, alive = await claim(ledger, "0"), await claim(ledger, "1")
    await end_lease(redis, "0")

    assert await ledger.expired(JOB) == ["0"]
    assert await ledger.expired(JOB) == []
    assert [r.is_held for r in await ledger.renew([dead, alive])] == [False, True]


async def test_a_released_batch_can_be_claimed_at_once_and_costs_no_delivery(redis: Redis) -> None:
    await submit_batches(redis)
    ledger = make_ledger(redis)
    former = await claim(ledger)

    assert await ledger.release(former)
    latter = await claim(make_ledger(redis, "w2"))

    assert latter.deliveries == 1
    assert latter.fence > former.fence
    assert not await ledger.release(former)


async def test_what_a_former_owner_does_changes_nothing(redis: Redis) -> None:
    await submit_batches(redis)
    ledger = make_ledger(redis)
    former = await claim(ledger)
    await end_lease(redis)
    await ledger.expired(JOB)
    latter = await claim(make_ledger(redis, "w2"))
    before = {name: await redis.dump(name) for name in await names(redis)}

    (is_written,) = await ledger.checkpoint([(former, Pending([make_outcome(0)]))])
    (renewal,) = await ledger.renew([former])
    is_released = await ledger.release(former)
    with pytest.raises(LeaseLostError, match="no longer ours"):
        await ledger.count_off(former, Pending())

    assert (is_written, renewal.is_held, is_released) == (False, False, False)
    assert {name: await redis.dump(name) for name in await names(redis)} == before
    assert (await ledger.renew([latter]))[0].is_held


async def test_a_batch_made_anew_knows_no_fence_from_before(redis: Redis) -> None:
    """Whoever was frozen since must not strike off what a retry has made: fences go by time."""
    seconds, micros = await redis.time()
    await submit_batches(redis)

    lease = await claim(make_ledger(redis))

    assert lease.fence > seconds * 1000 + micros // 1000


async def test_messages_that_were_lost_are_named_once_per_lease(redis: Redis) -> None:
    await submit_batches(redis, 2)
    await claim(make_ledger(redis), "1")
    await redis.zadd(f"job:{{{JOB}}}:queued", {"0": 1})
    ledger = make_ledger(redis)

    assert await ledger.unheard(JOB, 5) == ["0"]
    assert await ledger.unheard(JOB, 5) == []


async def test_the_last_batch_and_no_other_elects_the_finalizer(redis: Redis) -> None:
    store = await submit_batches(redis, 3)
    ledger = make_ledger(redis)
    leases = [await claim(ledger, batch) for batch in "012"]

    ends = [await ledger.count_off(lease, Pending()) for lease in leases]

    assert ends == [CountOff.COUNTED, CountOff.COUNTED, CountOff.LAST]
    assert await store.unclaimed(JOB) == {FINAL: None}
    assert await redis.hget(f"job:{{{JOB}}}", "state") == b"finalizing"


async def test_a_batch_is_counted_off_once_and_its_keys_go(redis: Redis) -> None:
    await submit_batches(redis, 2)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    await ledger.checkpoint([(lease, Pending([make_outcome(0)]))])

    await ledger.count_off(lease, Pending())

    with pytest.raises(LeaseLostError):
        await ledger.count_off(lease, Pending())
    assert await ledger.claim(JOB, "0") is Refusal.DONE
    assert not any(name.endswith(":0") for name in await names(redis))


async def test_a_finalizer_that_died_is_replaced_and_cannot_finish(redis: Redis) -> None:
    await submit_batches(redis)
    ledger = make_ledger(redis)
    await ledger.count_off(await claim(ledger), Pending())
    former = await claim(ledger, FINAL)
    await end_lease(redis, FINAL)
    assert await ledger.expired(JOB) == [FINAL]
    latter = await claim(make_ledger(redis, "w2"), FINAL)

    with pytest.raises(LeaseLostError, match="another worker"):
        await ledger.finish(former, JobState.FAILED, {})
    await ledger.finish(latter, JobState.COMPLETED, {"rows_succeeded": 3})

    assert await redis.hget(f"job:{{{JOB}}}", "state") == b"completed"


async def test_a_finished_job_is_remembered_for_a_while_and_then_gone(redis: Redis) -> None:
    store = await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    await ledger.checkpoint([(lease, Pending([make_outcome(0)], sent=1))])
    await store.report(JOB, "w1", report=Report(in_flight=1))
    await ledger.count_off(lease, Pending())

    await ledger.finish(await claim(ledger, FINAL), JobState.COMPLETED, {"rows_succeeded": 3})

    status = await store.status(JOB)
    assert status is not None
    assert status.rows_done == 3  # the exact totals stand in place of the progress
    assert status.requests.sent == 1
    assert status.finished_ms is not None
    assert await store.active_jobs() == []
    assert await names(redis) == {"jobs", f"job:{{{JOB}}}", f"job:{{{JOB}}}:counts"}
    for key in (f"job:{{{JOB}}}", f"job:{{{JOB}}}:counts"):
        assert 0 < await redis.ttl(key) <= FINISHED_TTL_S


async def test_finishing_without_totals_keeps_the_progress(redis: Redis) -> None:
    store = await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    await ledger.checkpoint([(lease, Pending([make_outcome(0)]))])
    await ledger.count_off(lease, Pending())

    await ledger.finish(await claim(ledger, FINAL), JobState.CANCELLED, {})

    status = await store.status(JOB)
    assert status is not None
    assert status.state is JobState.CANCELLED
    assert status.rows_done == 1
