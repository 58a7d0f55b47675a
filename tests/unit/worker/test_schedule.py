"""Which batch is next when several jobs wait: urgency first, then whoever has the fewest open."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from redis.asyncio import Redis

from tests.unit.worker.making import JOB, claim, make_ledger, make_rows, make_spec, submit
from tests.unit.worker.processes import open_worker
from worker.batch import BatchEnd, run_batch
from worker.jobs import FINAL, NORMAL
from worker.schedule import Schedule, Standing, claim_order


def _standing(job_id: str, *queued: str, opened: int = 0, priority: int = NORMAL) -> Standing:
    return Standing(job_id=job_id, priority=priority, open=opened, queued=queued)


async def _submit(redis: Redis, job_id: str, *, batches: int, priority: int = NORMAL) -> None:
    spec = dataclasses.replace(
        make_spec(), job_id=job_id, batches=batches, rows=batches, priority=priority
    )
    await submit(redis, spec, [make_rows(1, first=batch) for batch in range(batches)])


def test_a_message_does_what_it_says_while_nobody_is_worse_off() -> None:
    alone = [_standing("a", "1", "2", "3")]
    equal = [_standing("a", "1", "2"), _standing("b", "7")]

    assert claim_order(alone, hint=("a", "2")) == [("a", "2"), ("a", "1"), ("a", "3")]
    assert claim_order(equal, hint=("b", "7"))[0] == ("b", "7")
    assert claim_order(equal, hint=("a", "2"))[0] == ("a", "2")


def test_the_job_with_the_fewest_open_batches_is_next() -> None:
    standings = [_standing("large", "5", "6", opened=5), _standing("small", "0", opened=1)]

    assert claim_order(standings, hint=("large", "5")) == [
        ("small", "0"),
        ("large", "5"),
        ("large", "6"),
    ]


def test_a_more_urgent_job_goes_before_all_others() -> None:
    standings = [
        _standing("late", "0", priority=9),
        _standing("usual", "0"),
        _standing("urgent", "4", opened=50, priority=0),
    ]

    assert [job for job, _ in claim_order(standings, hint=("late", "0"))] == [
        "urgent",
        "usual",
        "late",
    ]


def test_a_batch_that_waits_no_longer_is_tried_last() -> None:
    """Its message came twice, or another one took it: this one is for whatever waits."""
    standings = [_standing("a", "1"), _standing("b", "2", opened=1)]

    assert claim_order(standings, hint=("b", "9")) == [("a", "1"), ("b", "2"), ("b", "9")]
    assert claim_order([], hint=("a", FINAL)) == [("a", FINAL)]


async def test_a_small_job_that_came_later_is_next_by_any_message(
    redis: Redis, tmp_path: Path
) -> None:
    """And the batch whose message that was is worked off by the small job's own."""
    await _submit(redis, JOB, batches=5)
    await _submit(redis, "small", batches=1)
    others = make_ledger(redis, "another")
    for batch in ("0", "1"):
        await claim(others, batch)
    async with open_worker(redis, tmp_path) as worker:
        first = await run_batch(worker.process, JOB, "2")
        second = await run_batch(worker.process, "small", "0")

    assert (first.end, second.end) == (BatchEnd.DONE, BatchEnd.DONE)
    assert (first.batch, second.batch) == ("0", "2")
    assert await redis.zrange(f"job:{{{JOB}}}:queued", 0, -1) == [b"3", b"4"]


async def test_a_message_does_what_it_says_however_many_wait_before(
    redis: Redis, tmp_path: Path
) -> None:
    """Else the first messages of a long queue would all try the same first batches."""
    await _submit(redis, JOB, batches=40)
    async with open_worker(redis, tmp_path) as worker:
        assert (await run_batch(worker.process, JOB, "30")).batch == "30"


async def test_a_message_whose_batch_others_took_looks_again_while_any_waits(
    redis: Redis, tmp_path: Path
) -> None:
    """It was dropped, and a batch stayed without a message until the reaper missed it."""
    await _submit(redis, JOB, batches=20)
    others = make_ledger(redis, "another")
    async with open_worker(redis, tmp_path) as worker:
        process = worker.process
        stale = await process.schedule.candidates(JOB, "18")
        look = process.schedule.candidates
        answers = [stale]

        async def candidates(job_id: str, batch: str) -> list[tuple[str, str]]:
            return answers.pop() if answers else await look(job_id, batch)

        process.schedule.candidates = candidates  # type: ignore[method-assign]
        for _, batch in stale:  # taken before this message's claim
            await claim(others, batch)

        delivery = await run_batch(process, JOB, "18")

        assert (delivery.end, delivery.batch) == (BatchEnd.DONE, "16")


async def test_a_paused_job_takes_no_turns(redis: Redis) -> None:
    await _submit(redis, JOB, batches=1)
    await _submit(redis, "other", batches=1)
    await redis.hset(f"job:{{{JOB}}}", "state", "paused")

    assert await Schedule(redis).candidates("other", "0") == [("other", "0")]


async def test_a_job_without_an_open_batch_is_neglected_unless_another_is_more_urgent(
    redis: Redis,
) -> None:
    await _submit(redis, JOB, batches=2)
    schedule = Schedule(redis)
    before = await schedule.is_any_neglected()
    await claim(make_ledger(redis, "another"), "0")
    after = await schedule.is_any_neglected()
    await _submit(redis, "patient", batches=1, priority=9)
    beside_a_patient_one = await schedule.is_any_neglected()
    await _submit(redis, "urgent", batches=1, priority=0)

    assert (before, after, beside_a_patient_one) == (True, False, False)
    assert await schedule.is_any_neglected()


async def test_full_slots_take_one_message_for_a_neglected_job_and_no_more(
    redis: Redis, tmp_path: Path
) -> None:
    await _submit(redis, JOB, batches=2)
    async with open_worker(redis, tmp_path) as worker:
        process = worker.process
        process.slots.waiting = process.slots.size
        usually = process.wanted_batches
        process.is_any_neglected = True
        for_it = process.wanted_batches
        await run_batch(process, JOB, "0")

        assert (usually, for_it, process.is_any_neglected) == (0, 1, False)
