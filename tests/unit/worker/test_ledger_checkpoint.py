"""Checkpoints: every outcome once, and counts that stay exact whatever is written twice."""

from __future__ import annotations

import random

import pytest
from redis.asyncio import Redis

from flavor.errors import StoreError
from flavor.prices import Price
from flavor.types import Usage
from tests.unit.worker.making import (
    JOB,
    claim,
    end_lease,
    make_dead,
    make_ledger,
    make_outcome,
    make_rows,
    make_spec,
    submit,
    submit_batches,
)
from worker.codec import decode_outcomes, decode_rows
from worker.jobs import Lease, Outcome, Verdict
from worker.ledger import Ledger
from worker.pending import Pending
from worker.status import JobStatus, Requests, Tokens
from worker.store import Store


async def _status(store: Store) -> JobStatus:
    status = await store.status(JOB)
    assert status is not None
    return status


async def _saved(ledger: Ledger, lease: Lease) -> dict[int, Outcome]:
    _, checkpoint = await ledger.load(lease)
    return {outcome.index: outcome for blob in checkpoint for outcome in decode_outcomes(blob)}


async def test_outcomes_are_kept_and_counted(redis: Redis) -> None:
    store = await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    outcomes = [make_outcome(0), make_dead(1), make_dead(2, Verdict.EXHAUSTED)]

    pending = Pending(outcomes, sent=9, retried=4, throttled=2, in_doubt=1)
    written = await ledger.checkpoint([(lease, pending)])

    status = await _status(store)
    assert written == [True]
    assert await _saved(ledger, lease) == dict(enumerate(outcomes))
    assert status.rows == {
        Verdict.SUCCEEDED: 1,
        Verdict.REJECTED: 1,
        Verdict.EXHAUSTED: 1,
        Verdict.CANCELLED: 0,
    }
    assert status.tokens == Tokens(prompt=10, completion=5, total=15, cached=2, reasoning=1)
    assert status.requests == Requests(sent=9, retried=4, throttled=2)
    assert status.rows_in_doubt == 1


async def test_the_first_outcome_of_a_row_stays(redis: Redis) -> None:
    store = await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    first = make_outcome(0, output="first")
    await ledger.checkpoint([(lease, Pending([first]))])

    await ledger.checkpoint([(lease, Pending([make_dead(0)]))])

    assert await _saved(ledger, lease) == {0: first}
    assert (await _status(store)).rows_dead == 0


TEXTS = [make_outcome(n, output=f"answer {n}", cost_usd=1e-7) for n in range(100)]
VECTORS = [make_outcome(n, output=bytes([n] * 8), cost_usd=1e-7) for n in range(100)]


@pytest.mark.parametrize("outcomes", [TEXTS, VECTORS, TEXTS[:50] + VECTORS[50:]])
async def test_outcomes_are_kept_together_and_each_is_counted(
    redis: Redis, outcomes: list[Outcome]
) -> None:
    """64 to a value: one by one vectors were four fifths of Redis' work, texts a third."""
    store = await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    written = [make_dead(100), *outcomes]

    await ledger.checkpoint([(lease, Pending(written))])

    status = await _status(store)
    assert await _saved(ledger, lease) == {outcome.index: outcome for outcome in written}
    assert await redis.hlen(f"job:{{{JOB}}}:outcomes:0") == 3
    assert (status.rows_done, status.rows_dead, status.tokens.total) == (101, 1, 1500)
    assert await redis.hget(f"job:{{{JOB}}}:counts", "cost_pico") == b"10000000"


async def test_long_answers_make_no_long_value(redis: Redis) -> None:
    await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    long = [make_outcome(n, output=str(n) * size) for n, size in enumerate([900_000, 300_000] * 2)]

    await ledger.checkpoint([(lease, Pending(long))])

    assert await _saved(ledger, lease) == dict(enumerate(long))
    values = await redis.hvals(f"job:{{{JOB}}}:outcomes:0")
    assert max(map(len, values)) < 1_000_000


@pytest.mark.parametrize("outcomes", [TEXTS, VECTORS])
async def test_outcomes_written_again_beside_later_ones_count_once(
    redis: Redis, outcomes: list[Outcome]
) -> None:
    """A reply was lost, so they are written again, and under the same names: with the later ones
    together they would be another value, and count once more."""
    store = await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    pending = Pending(outcomes[70:80])
    for some in (outcomes[30:40], outcomes[:30]):
        taken = pending.take()
        await ledger.checkpoint([(lease, taken)])
        pending.put_back(taken)
        pending.outcomes += some

    await ledger.checkpoint([(lease, pending.take())])

    assert await _saved(ledger, lease) == {o.index: o for o in outcomes[:40] + outcomes[70:80]}
    assert (await _status(store)).rows_done == 50


async def test_the_next_owner_finds_what_the_former_one_saved(redis: Redis) -> None:
    await submit_batches(redis)
    ledger = make_ledger(redis)
    former = await claim(ledger)
    await ledger.checkpoint([(former, Pending([make_outcome(1)]))])
    await end_lease(redis)
    await ledger.expired(JOB)

    latter = await claim(ledger)

    assert await _saved(ledger, latter) == {1: make_outcome(1)}


async def test_a_former_owners_requests_count_but_its_outcomes_do_not(redis: Redis) -> None:
    """They were sent, and somebody pays for them."""
    store = await submit_batches(redis, 2)
    ledger = make_ledger(redis)
    lost, held = await claim(ledger, "0"), await claim(ledger, "1")
    await ledger.release(lost)

    written = await ledger.checkpoint(
        [
            (lost, Pending([make_outcome(0)], sent=1)),
            (held, Pending([make_outcome(3)], sent=1)),
        ]
    )

    status = await _status(store)
    assert written == [False, True]
    assert status.requests.sent == 2
    assert status.rows_done == 1
    assert await redis.hgetall(f"job:{{{JOB}}}:outcomes:0") == {}


async def test_nobodys_batch_takes_no_outcome(redis: Redis) -> None:
    """Its lease was taken, and no other worker has claimed it yet."""
    await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    await end_lease(redis)
    await ledger.expired(JOB)

    assert await ledger.checkpoint([(lease, Pending([make_outcome(0)]))]) == [False]

    assert await _saved(ledger, lease) == {}


async def test_costs_add_up_to_the_last_pico_dollar(redis: Redis) -> None:
    """Floats would not: 0.1 + 0.2 is not 0.3."""
    price = Price(input_usd_per_token=1e-7, output_usd_per_token=1e-7)
    store = await submit(redis, make_spec(rows=300, price=price), [make_rows(300)])
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    chance = random.Random(7)
    costs = [chance.randrange(1, 10**9) for _ in range(300)]
    outcomes = [make_outcome(n, cost_usd=pico / 1e12) for n, pico in enumerate(costs)]

    for start in range(0, 300, 37):
        await ledger.checkpoint([(lease, Pending(outcomes[start : start + 37]))])

    assert (await _status(store)).cost_usd == sum(costs) / 1e12


async def test_counts_beyond_32_bits_stay_exact(redis: Redis) -> None:
    store = await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    usage = Usage(prompt_tokens=2**45 + 1, total_tokens=2**45 + 1)

    await ledger.checkpoint([(lease, Pending([make_outcome(n, usage=usage) for n in (0, 1)]))])

    assert (await _status(store)).tokens.prompt == 2**46 + 2


async def test_unknown_usage_and_cost_add_nothing(redis: Redis) -> None:
    store = await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)

    await ledger.checkpoint([(lease, Pending([make_outcome(0, usage=None)]))])

    status = await _status(store)
    assert status.tokens == Tokens()
    assert status.cost_usd is None


async def test_thousands_of_outcomes_go_in_one_call(redis: Redis) -> None:
    store = await submit(redis, make_spec(rows=800), [make_rows(800)])
    ledger = make_ledger(redis)
    lease = await claim(ledger)

    await ledger.checkpoint([(lease, Pending([make_outcome(n) for n in range(800)]))])

    assert (await _status(store)).rows_done == 800


async def test_a_draft_that_brings_outcomes_hands_them_to_its_worker(redis: Redis) -> None:
    """A resumed job skips what its run has already."""
    store = Store(redis)
    await store.begin(make_spec())
    await store.add_batches(JOB, [(0, b"rows")])
    await store.add_outcomes(JOB, 0, [make_outcome(2)])
    await store.add_outcomes(JOB, 0, [])
    await store.commit(JOB, counts={"rows_succeeded": 1})
    ledger = make_ledger(redis)

    lease = await claim(ledger)

    assert await _saved(ledger, lease) == {2: make_outcome(2)}
    assert (await _status(store)).rows_done == 1


async def test_rows_that_are_gone_are_said_to_be_gone(redis: Redis) -> None:
    await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    payload, _ = await ledger.load(lease)
    await redis.delete(f"job:{{{JOB}}}:rows:0")

    after, _ = await ledger.load(lease)

    assert payload is not None
    assert len(decode_rows(payload)) == 3
    assert after is None


async def test_what_could_not_be_written_is_put_back_in_front() -> None:
    pending = Pending([make_outcome(0)], sent=1, retried=1, throttled=1)

    taken = pending.take()
    pending.outcomes.append(make_outcome(1))
    pending.sent += 1
    is_left = bool(pending)
    pending.put_back(taken)

    assert is_left
    assert [outcome.index for outcome in pending.outcomes] == [0, 1]
    assert (pending.sent, pending.retried, pending.throttled) == (2, 1, 1)
    assert not Pending()


async def test_a_key_of_the_wrong_type_is_a_store_error(redis: Redis) -> None:
    await submit_batches(redis)
    ledger = make_ledger(redis)
    lease = await claim(ledger)
    await redis.delete(f"job:{{{JOB}}}:outcomes:0")
    await redis.set(f"job:{{{JOB}}}:outcomes:0", "no hash")

    with pytest.raises(StoreError, match="refuses"):
        await ledger.checkpoint([(lease, Pending([make_outcome(0)]))])
