"""The shared limits: what the scripts compute, to the microsecond, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import anyio
import pytest
from redis.asyncio import Redis

from flavor.errors import RowError
from tests.unit.worker.fakes import AwayRedis, CountingRedis
from tests.unit.worker.making import until
from worker.discovery import FIRST
from worker.jobs import Limits
from worker.limiter import SPARE_S, Limiter
from worker.redis_client import run_script, text
from worker.stop import Stop, StoppedError, StopReason

KEY = "limit:{endpoint:gpt-4o-mini}"
KEYS = (KEY, f"{KEY}:askers")
BURST_US = 100_000
HORIZON_US = 1_000_000


@dataclass(frozen=True)
class Answer:
    """What ``lua/reserve.lua`` returns, taken apart."""

    ask_again_us: int
    cause: str
    limits: tuple[int, int]
    is_heard: bool
    epoch: int
    pause_us: int
    processes: int
    spare: int
    granted: list[tuple[int, int]]

    @property
    def turns_us(self) -> list[int]:
        return [turn_us for _, turn_us in self.granted]


async def _ask(
    redis: Redis,
    *jobs: tuple[str, list[int]],
    rpm: int = 0,
    tpm: int = 0,
    burst_us: int = BURST_US,
    horizon_us: int = HORIZON_US,
    process: str = "p",
    difference: int = 0,
    heard: tuple[object, object, object, object] = ("", "", "", ""),
    spare: tuple[int, int] = (0, 0),
    unused: int = 0,
    epoch: int = 0,
) -> Answer:
    args = [rpm, tpm, burst_us, horizon_us, process, difference, *heard, *spare, unused, epoch]
    for job_id, tokens in jobs:
        args += [job_id, len(tokens), *tokens]
    reply = await run_script(redis, "reserve", keys=KEYS, args=args)
    numbers = [int(value) for value in reply[9:]]
    return Answer(
        ask_again_us=int(reply[0]), cause=text(reply[1]), limits=(int(reply[2]), int(reply[3])),
        is_heard=bool(int(reply[4])), epoch=int(reply[5]), pause_us=int(reply[6]),
        processes=int(reply[7]), spare=int(reply[8]),
        granted=list(zip(numbers[::2], numbers[1::2], strict=True)),
    )  # fmt: skip


async def _reserve(redis: Redis, *tokens: int, **options: Any) -> Answer:
    return await _ask(redis, ("job", list(tokens)), **options)


async def _pause(redis: Redis, pause_us: int) -> int:
    return int(await run_script(redis, "pause", keys=KEYS, args=[pause_us, BURST_US]))


async def _stored(redis: Redis) -> dict[str, int]:
    return {text(name): round(float(value)) for name, value in (await redis.hgetall(KEY)).items()}


@asynccontextmanager
async def _serving(*limiters: Limiter) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        for limiter in limiters:
            tasks.start_soon(limiter.serve)
        yield
        tasks.cancel_scope.cancel()


async def test_requests_go_at_the_pace_of_the_limit(redis: Redis) -> None:
    """600 a minute is one in 100,000 us; the burst lets one more go at once."""
    answer = await _reserve(redis, *[1] * 6, rpm=600)

    assert answer.turns_us == [0, 0, 100_000, 200_000, 300_000, 400_000]
    assert (answer.ask_again_us, answer.cause) == (0, "requests")


async def test_tokens_go_at_the_pace_of_the_limit(redis: Redis) -> None:
    """60,000 a minute is one in 1,000 us."""
    answer = await _reserve(redis, 100, 150, 250, 1, tpm=60_000)

    assert answer.turns_us == [0, 0, 150_000, 400_000]
    assert answer.cause == "tokens"


async def test_the_slower_of_both_limits_decides(redis: Redis) -> None:
    """A request in 200,000 us against a token in 1,000 us."""
    answer = await _reserve(redis, 100, 400, 1, 1, rpm=300, tpm=60_000)

    assert answer.turns_us == [0, 100_000, 400_000, 500_000]
    assert answer.cause == "requests"


async def test_a_request_beyond_the_horizon_debits_neither_bucket(redis: Redis) -> None:
    """One a second with no burst: the second request is a second away, and nobody pays for it."""
    answer = await _reserve(redis, 500, 500, rpm=60, tpm=60_000, burst_us=0, horizon_us=400_000)

    stored = await _stored(redis)
    [first_us] = answer.turns_us
    assert answer.cause == "requests"
    assert stored["requests_us"] - stored["tokens_us"] == 500_000
    assert first_us <= 50_000
    assert 550_000 <= answer.ask_again_us - first_us <= 650_000


async def test_a_request_of_nearly_a_seconds_allowance_waits_until_it_fits(redis: Redis) -> None:
    """A server whose bucket holds one second refuses it otherwise."""
    await _reserve(redis, 10, tpm=60_000, burst_us=900_000)

    [turn_us] = (await _reserve(redis, 900, tpm=60_000, burst_us=900_000)).turns_us

    assert turn_us > 0


async def test_without_limits_every_turn_is_now(redis: Redis) -> None:
    answer = await _reserve(redis, *[10**9] * 3)

    assert (answer.ask_again_us, answer.cause, answer.turns_us) == (0, "none", [0, 0, 0])


async def test_workers_share_one_pace(redis: Redis) -> None:
    first = await _reserve(redis, *[1] * 4, rpm=600)

    second = await _reserve(redis, *[1] * 4, rpm=600)

    # Less by the time between the calls, and by that to the same microsecond in each turn.
    assert second.turns_us[0] <= first.turns_us[-1] + 100_000
    assert [turn - second.turns_us[0] for turn in second.turns_us] == [0, 100_000, 200_000, 300_000]


async def test_processes_that_ask_at_once_each_get_their_share_of_what_is_free(
    redis: Redis,
) -> None:
    """Both wait for hundreds of turns; a second's allowance is ten."""
    await _reserve(redis, *[1] * 300, rpm=600, process="one")
    await _reserve(redis, *[1] * 300, rpm=600, process="two")
    await redis.hset(KEY, "requests_us", 0)

    first = await _reserve(redis, *[1] * 300, rpm=600, process="one")
    second = await _reserve(redis, *[1] * 300, rpm=600, process="two")

    assert first.processes == second.processes == 2
    assert abs(len(first.granted) - len(second.granted)) <= 2
    assert 9 <= len(first.granted) + len(second.granted) <= 12


async def test_after_an_outage_the_first_process_back_gets_no_more_than_the_limit(
    redis: Redis,
) -> None:
    """Those who asked are forgotten after 2.5 s; the turns that they were given are not."""
    before = [
        turn_us
        for process in ("one", "two")
        for turn_us in (await _reserve(redis, *[1] * 300, rpm=600, process=process)).turns_us
    ]
    await redis.delete(KEYS[1])

    back = (await _reserve(redis, *[1] * 300, rpm=600, process="one")).turns_us

    assert all(turn_us >= max(before) + 50_000 for turn_us in back)
    assert len(before) + len(back) <= 12  # a second's allowance and what a burst lets go at once


async def test_jobs_with_different_limits_take_turns_on_one_account(redis: Redis) -> None:
    """As the README says: a request takes as long as its own job's limit makes it."""
    slow = await _ask(redis, ("slow", [1, 1]), rpm=600, burst_us=0)
    fast = await _ask(redis, ("fast", [1, 1]), rpm=6000, burst_us=0)

    assert slow.turns_us == [0, 100_000]
    assert fast.turns_us[0] == pytest.approx(
        200_000, abs=50_000
    )  # two tenths, less what has passed
    assert fast.turns_us[1] - fast.turns_us[0] == 10_000


async def test_jobs_share_the_pace_whatever_their_size(redis: Redis) -> None:
    answer = await _ask(redis, ("large", [1] * 100), ("small", [1] * 3), rpm=600)

    assert [number for number, _ in answer.granted][:6] == [1, 2, 1, 2, 1, 2]


async def test_turns_are_spare_while_a_bucket_has_room_and_no_more_than_that(redis: Redis) -> None:
    """6,000 a minute is one in 10,000 us; the burst of 100,000 us has room for ten and one more."""
    answer = await _reserve(redis, *[1] * 3, rpm=6000, spare=(20, 0))

    assert (answer.turns_us, answer.spare) == ([0, 0, 0], 8)


async def test_tokens_bound_spare_turns_too(redis: Redis) -> None:
    """60,000 a minute is one in 1,000 us: 100 fit into the burst."""
    answer = await _reserve(redis, 40, tpm=60_000, spare=(20, 20))

    assert (answer.turns_us, answer.spare) == ([0], 4)


async def test_no_turn_is_spare_where_a_row_waits_for_its_own(redis: Redis) -> None:
    waiting = await _reserve(redis, *[1] * 20, rpm=600, spare=(5, 0))
    paused = await _pause(redis, 50_000)
    after = await _reserve(redis, 1, rpm=600, spare=(5, 0))

    assert (waiting.cause, waiting.spare) == ("requests", 0)
    assert (paused, after.spare) == (1, 0)


async def test_spare_turns_that_nobody_used_are_anothers(redis: Redis) -> None:
    held = await _reserve(redis, rpm=6000, spare=(11, 0))
    refused = await _reserve(redis, rpm=6000, spare=(11, 0), process="other")
    await _reserve(redis, rpm=6000, spare=(-6, 0))
    had = await _reserve(redis, rpm=6000, spare=(11, 0), process="other")

    assert held.spare == 11
    assert refused.spare <= 1  # by the time between the calls
    assert 6 <= refused.spare + had.spare <= 8


async def test_giving_back_fills_a_bucket_no_further_than_its_burst(redis: Redis) -> None:
    await _reserve(redis, rpm=6000, spare=(-1000, 0))

    answer = await _reserve(redis, *[1] * 13, rpm=6000)

    assert answer.turns_us.count(0) == 11


async def test_a_job_whose_rows_go_with_spare_turns_has_its_share_of_what_is_free(
    redis: Redis,
) -> None:
    await _ask(redis, ("large", []), rpm=600, process="one")

    answer = await _ask(redis, ("small", [1] * 300), rpm=600, process="two")

    assert answer.processes == 2
    assert 5 <= len(answer.granted) <= 7  # half of a second's ten, and one of the burst


async def test_settling_gives_back_exactly_what_was_not_used(redis: Redis) -> None:
    await _reserve(redis, 500, tpm=60_000)
    before = await _stored(redis)

    await _ask(redis, tpm=60_000, difference=120 - 500)

    after = await _stored(redis)
    assert before["tokens_us"] - after["tokens_us"] == 380_000
    assert after["requests_us"] == before["requests_us"]


async def test_settling_takes_what_was_used_beyond_the_estimate(redis: Redis) -> None:
    await _reserve(redis, 10, tpm=60_000)
    before = await _stored(redis)

    await _ask(redis, tpm=60_000, difference=25)

    assert (await _stored(redis))["tokens_us"] - before["tokens_us"] == 25_000


async def test_limits_that_nobody_set_are_those_that_the_server_named(redis: Redis) -> None:
    before = await _ask(redis)
    told = await _ask(redis, heard=(600, 0, 60_000, 0))
    changed = await _ask(redis, heard=(300, 0, "", ""))
    by_user = await _ask(redis, rpm=5)

    assert (before.limits, before.is_heard) == ((0, 0), False)
    assert (told.limits, told.is_heard) == ((600, 60_000), True)
    assert changed.limits == (300, 60_000)
    assert by_user.limits == (5, 60_000)


async def test_somebody_else_on_the_key_is_given_way_to_and_the_pace_comes_back(
    redis: Redis,
) -> None:
    """The server counts more than we have sent: its bucket is emptier than ours."""
    for _ in range(10):
        await redis.hincrbyfloat(KEY, "heard_us", -300_000)
        await _ask(redis, heard=(600, 5_000_000, "", ""))
    slowed = await _reserve(redis, *[1] * 3, horizon_us=9_000_000)
    for _ in range(60):
        await redis.hincrbyfloat(KEY, "heard_us", -1_000_000)
        await _ask(redis, heard=(600, 0, "", ""))
    await redis.hset(KEY, "requests_us", 0)
    recovered = await _reserve(redis, *[1] * 3)

    assert slowed.turns_us[2] - slowed.turns_us[1] > 200_000
    assert recovered.turns_us[2] - recovered.turns_us[1] == 100_000


async def test_a_pause_holds_every_request_back(redis: Redis) -> None:
    await _pause(redis, 30_000_000)

    answer = await _reserve(redis, 1, rpm=600)

    assert answer.turns_us == []
    assert 28_000_000 < answer.ask_again_us <= 29_000_000
    assert 29_000_000 < answer.pause_us <= 30_000_000


async def test_after_a_pause_requests_go_at_their_pace_and_not_in_one_burst(redis: Redis) -> None:
    await _reserve(redis, *[1] * 2, rpm=600)
    await _pause(redis, 300_000)

    turns_us = (await _reserve(redis, *[1] * 3, rpm=600)).turns_us

    assert turns_us[0] >= 290_000
    assert [turn - turns_us[0] for turn in turns_us] == [0, 100_000, 200_000]


async def test_a_pause_voids_the_turns_given_before(redis: Redis) -> None:
    before = (await _reserve(redis, 1, rpm=600)).epoch

    epoch = await _pause(redis, 1_000_000)

    assert epoch == before + 1
    assert (await _reserve(redis, 1, rpm=600)).epoch == epoch


async def test_a_shorter_pause_does_not_end_a_longer_one(redis: Redis) -> None:
    epoch = await _pause(redis, 30_000_000)
    long = (await _stored(redis))["pause_us"]

    assert await _pause(redis, 1) == epoch
    assert (await _stored(redis))["pause_us"] == long


async def test_a_limit_that_nobody_uses_expires_but_not_before_its_pause(redis: Redis) -> None:
    await _reserve(redis, 1, rpm=600)
    unused_s = await redis.ttl(KEY)
    await _pause(redis, 7200 * 1_000_000)

    assert 0 < unused_s <= 3600
    assert await redis.ttl(KEY) > 7200


async def test_rows_that_wait_together_share_one_call(redis: Redis) -> None:
    counting = CountingRedis(redis)
    limiter = Limiter(cast("Redis", counting), KEYS, Limits(requests_per_min=10**6))

    async with _serving(limiter):
        await asyncio.gather(*(limiter.reserve(1, Stop()) for _ in range(200)))

    assert len(counting.calls) <= 2


async def test_rows_that_follow_others_go_without_a_call(redis: Redis) -> None:
    counting = CountingRedis(redis)
    limiter = Limiter(cast("Redis", counting), KEYS, Limits(requests_per_min=10**6))

    async with _serving(limiter):
        await asyncio.gather(*(limiter.reserve(1, Stop()) for _ in range(20)))
        calls = len(counting.calls)
        for _ in range(20):  # none of these gives another task its turn
            await limiter.reserve(1, Stop())

    assert len(counting.calls) == calls


async def test_a_stream_of_rows_with_spare_turns_takes_few_calls(redis: Redis) -> None:
    """A call for each few of them was a tenth of Redis' work."""
    counting = CountingRedis(redis)
    limiter = Limiter(cast("Redis", counting), KEYS, Limits(requests_per_min=10**6))
    loop = asyncio.get_running_loop()

    async with _serving(limiter):
        await asyncio.gather(*(limiter.reserve(1, Stop()) for _ in range(50)))
        began_s, calls = loop.time(), len(counting.calls)
        while loop.time() < began_s + 0.3:
            await limiter.reserve(1, Stop())
            await asyncio.sleep(0.001)
        calls = len(counting.calls) - calls

    assert calls <= (loop.time() - began_s) / SPARE_S + 3


async def test_what_was_held_before_a_pause_does_not_come_back_after_it(redis: Redis) -> None:
    """Each process gives back what it has not used, and some have not heard of the pause yet."""
    held = await _reserve(redis, 100, rpm=6000, tpm=600_000, spare=(8, 100))
    epoch = await _pause(redis, 200_000)

    await _ask(redis, rpm=6000, tpm=600_000, spare=(-8, 0), unused=800, epoch=held.epoch)
    after = await _reserve(redis, *[100] * 3, rpm=6000, tpm=600_000, epoch=epoch)

    assert held.spare == 8
    first_us, *others_us = after.turns_us
    assert 150_000 < first_us <= 200_000
    assert [turn_us - first_us for turn_us in others_us] == [10_000, 20_000]


async def test_what_was_held_and_not_used_comes_back(redis: Redis) -> None:
    """The burst is ten requests."""
    held = await _reserve(redis, 100, rpm=6000, tpm=600_000, spare=(9, 100))

    await _ask(redis, rpm=6000, tpm=600_000, spare=(-9, 0), unused=900, epoch=held.epoch)
    after = await _reserve(redis, *[100] * 9, rpm=6000, tpm=600_000)

    assert held.spare == 9
    assert after.turns_us == [0] * 9


@pytest.mark.parametrize("met_by", ["itself", "another"])
async def test_turns_held_before_a_pause_are_void_after_it(redis: Redis, met_by: str) -> None:
    """6,000 a minute is one in 10 ms. Else what was held would follow the pause in one burst."""
    limits = Limits(requests_per_min=6000)
    limiter, other = Limiter(redis, KEYS, limits), Limiter(redis, KEYS, limits)
    loop = asyncio.get_running_loop()
    async with _serving(limiter, other):
        await asyncio.gather(*(limiter.reserve(1, Stop()) for _ in range(4)))
        await (limiter if met_by == "itself" else other).pause(0.3)
        ends_s = loop.time() + 0.3
        if met_by == "another":
            await limiter.reserve(1, Stop())  # it does not know yet, and asks
            await until(lambda: bool(limiter.waiting_for) or loop.time() > ends_s)

        await asyncio.gather(*(limiter.reserve(1, Stop()) for _ in range(6)))

    assert loop.time() - ends_s >= 0.045


async def test_a_row_that_comes_while_others_ask_waits_for_the_next_call_alone(
    redis: Redis,
) -> None:
    """It was refused nothing: it need not wait as those do whom a limit holds back."""
    counting = CountingRedis(redis)
    limiter = Limiter(cast("Redis", counting), KEYS, Limits(requests_per_min=10**6))
    late: list[asyncio.Task[None]] = []
    counting.meanwhile = lambda: late.append(asyncio.ensure_future(limiter.reserve(1, Stop())))

    async with _serving(limiter):
        await limiter.reserve(1, Stop())
        counting.meanwhile = lambda: None
        began_s = asyncio.get_running_loop().time()
        await late[0]

    assert asyncio.get_running_loop().time() - began_s < 0.15


async def test_rows_that_have_left_keep_no_later_row_waiting_for_unknown_limits(
    redis: Redis,
) -> None:
    """While an endpoint is down nobody tells its limits; each probe would wait 0.1 s longer."""
    limiter, stop = Limiter(redis, KEYS, Limits()), Stop()
    async with _serving(limiter):
        waiting = [asyncio.ensure_future(limiter.reserve(1, stop)) for _ in range(FIRST + 60)]
        await asyncio.sleep(0.01)
        stop.set(StopReason.PAUSED)
        await asyncio.gather(*waiting, return_exceptions=True)
        with anyio.fail_after(3):
            await limiter.reserve(1, Stop())


async def test_limits_unknown_at_first_let_a_few_through_and_then_wait_for_an_answer(
    redis: Redis,
) -> None:
    limiter = Limiter(redis, KEYS, Limits())
    async with _serving(limiter):
        turns = [asyncio.ensure_future(limiter.reserve(1, Stop())) for _ in range(FIRST + 20)]
        await asyncio.sleep(0.05)
        let_through = sum(turn.done() for turn in turns)
        limiter.heard({"x-ratelimit-limit-requests": "60000"})
        await asyncio.gather(*turns)

    assert let_through == FIRST
    assert limiter.limits == Limits(requests_per_min=60_000)


async def test_an_endpoint_that_names_no_limit_holds_nobody_back(redis: Redis) -> None:
    limiter = Limiter(redis, KEYS, Limits())
    async with _serving(limiter):
        limiter.heard({"content-type": "application/json"})
        await asyncio.gather(*(limiter.reserve(10**9, Stop()) for _ in range(200)))

    assert not limiter.is_limited


async def test_what_one_process_learns_all_follow(redis: Redis) -> None:
    here, there = Limiter(redis, KEYS, Limits()), Limiter(redis, KEYS, Limits())
    async with _serving(here, there):
        await there.reserve(1, Stop())
        here.heard({"x-ratelimit-limit-requests": "600", "x-ratelimit-limit-tokens": "90000"})

        await until(lambda: there.is_limited)

    assert there.limits == Limits(requests_per_min=600, tokens_per_min=90_000)


async def test_differences_travel_with_the_next_reservation(redis: Redis) -> None:
    counting = CountingRedis(redis)
    limiter = Limiter(cast("Redis", counting), KEYS, Limits(tokens_per_min=10**7))
    async with _serving(limiter):
        await asyncio.gather(limiter.reserve(100, Stop()), limiter.reserve(100, Stop()))
        limiter.settle(100, 40)
        limiter.settle(100, 130)

        await limiter.reserve(100, Stop())
        await until(lambda: sum(args[5] for args in counting.args) == -30)

    assert set(counting.calls) == {"reserve"}


async def test_a_row_above_a_whole_minutes_limit_is_refused_at_once(redis: Redis) -> None:
    limiter = Limiter(redis, KEYS, Limits(tokens_per_min=1000))

    with pytest.raises(RowError, match="1001 tokens; a whole minute allows 1000") as caught:
        await limiter.reserve(1001, Stop())

    assert caught.value.info.type == "TooLarge"


async def test_the_waiters_of_a_stopped_batch_end_and_the_others_go_on(redis: Redis) -> None:
    limiter = Limiter(redis, KEYS, Limits(requests_per_min=600))
    stopped, going = Stop(), Stop()
    async with _serving(limiter):
        waiters = [
            asyncio.ensure_future(limiter.reserve(1, stop))
            for stop in (going, going, stopped, stopped, going)
        ]
        await waiters[0]

        stopped.set(StopReason.PAUSED)
        ends = await asyncio.gather(*waiters[2:4], return_exceptions=True)
        waiting_for = limiter.waiting_for
        await waiters[1]
        for waiter in waiters[4:]:
            waiter.cancel()

    assert [type(end) for end in ends] == [StoppedError, StoppedError]
    assert waiting_for == ""  # every turn is given: they sleep until theirs


async def test_a_stopped_batch_gets_no_turn(redis: Redis) -> None:
    stop = Stop()
    stop.set(StopReason.SHUTDOWN)

    with pytest.raises(StoppedError):
        await Limiter(redis, KEYS, Limits(requests_per_min=5)).reserve(1, stop)


async def test_one_pause_holds_back_the_rows_of_every_process(redis: Redis) -> None:
    limits = Limits(requests_per_min=10**6)
    here, there = Limiter(redis, KEYS, limits), Limiter(redis, KEYS, limits)
    loop = asyncio.get_running_loop()
    started_s = loop.time()

    await here.pause(0.08)
    says = here.waiting_for
    async with _serving(here, there):
        await asyncio.gather(here.reserve(1, Stop()), there.reserve(1, Stop()))

    assert says == "the endpoint's pause"
    assert loop.time() - started_s >= 0.079


async def test_says_which_limit_the_rows_wait_for(redis: Redis) -> None:
    limiter = Limiter(redis, KEYS, Limits(requests_per_min=1))
    stop = Stop()
    async with _serving(limiter):
        await limiter.reserve(1, stop)
        waiter = asyncio.ensure_future(limiter.reserve(1, stop))
        await until(lambda: bool(limiter.waiting_for))

        says = limiter.waiting_for
        stop.set(StopReason.SHUTDOWN)

    assert says == "requests per minute"
    assert isinstance((await asyncio.gather(waiter, return_exceptions=True))[0], StoppedError)


async def test_rows_are_held_while_redis_is_away() -> None:
    limiter = Limiter(cast("Redis", AwayRedis()), KEYS, Limits(requests_per_min=600))
    stop = Stop()
    async with _serving(limiter):
        waiter = asyncio.ensure_future(limiter.reserve(1, stop))
        await until(lambda: bool(limiter.waiting_for))

        says, is_held = limiter.waiting_for, not waiter.done()
        stop.set(StopReason.SHUTDOWN)

    assert (says, is_held) == ("Redis", True)
    assert isinstance((await asyncio.gather(waiter, return_exceptions=True))[0], StoppedError)


async def test_a_429_while_redis_is_away_still_holds_this_process_back() -> None:
    """It used to raise, and the batch lost outcomes that it had paid for."""
    limiter = Limiter(cast("Redis", AwayRedis()), KEYS, Limits(requests_per_min=600))

    await limiter.pause(30)

    assert limiter.waiting_for == "the endpoint's pause"
