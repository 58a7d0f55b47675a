"""How many rows may have been paid twice: an upper bound, whoever dies and whenever."""

from __future__ import annotations

from redis.asyncio import Redis

from tests.unit.worker.making import (
    JOB,
    claim,
    end_lease,
    make_ledger,
    make_outcome,
    submit_batches,
)
from worker.pending import Pending
from worker.store import Store


async def _in_doubt(store: Store) -> int:
    status = await store.status(JOB)
    assert status is not None
    return status.rows_in_doubt


async def test_what_a_dead_worker_had_without_an_outcome_is_in_doubt(redis: Redis) -> None:
    """Whether it told of a request or not: it may have sent one just before it died."""
    store = await submit_batches(redis, rows=300)  # more than one byte's worth
    dead = make_ledger(redis, "w1")
    lease = await claim(dead)
    await dead.checkpoint([(lease, Pending([make_outcome(1)], sent=1, answered=1))])
    await end_lease(redis)

    await claim(make_ledger(redis, "w2"))

    assert await _in_doubt(store) == 299


async def test_rows_whose_vectors_share_a_value_are_not_in_doubt(redis: Redis) -> None:
    store = await submit_batches(redis, rows=300)
    dead = make_ledger(redis, "w1")
    lease = await claim(dead)
    vectors = [make_outcome(n, output=bytes(8)) for n in range(200)]
    await dead.checkpoint([(lease, Pending([*vectors, make_outcome(200)]))])
    await end_lease(redis)

    await claim(make_ledger(redis, "w2"))

    assert await _in_doubt(store) == 99


async def test_it_is_counted_once_where_a_reaper_took_the_batch_before(redis: Redis) -> None:
    store = await submit_batches(redis)
    await claim(make_ledger(redis, "w1"))
    await end_lease(redis)
    other = make_ledger(redis, "w2")

    assert await other.expired(JOB) == ["0"]
    await claim(other)

    assert await _in_doubt(store) == 3


async def test_each_death_adds_to_it(redis: Redis) -> None:
    store = await submit_batches(redis)
    for owner in ("w1", "w2", "w3"):
        await claim(make_ledger(redis, owner))
        await end_lease(redis)

    await claim(make_ledger(redis, "w4"))

    assert await _in_doubt(store) == 9


async def test_a_batch_that_was_given_back_or_never_had_leaves_no_doubt(redis: Redis) -> None:
    store = await submit_batches(redis)
    ledger = make_ledger(redis)
    for _ in range(2):
        await ledger.release(await claim(ledger))

    await claim(ledger)

    assert await _in_doubt(store) == 0
