"""How many requests are in flight at once, over all workers: the bound, the shares, what adapts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from redis.asyncio import Redis

from flavor.errors import RequestError, RowError, StoreError, ThrottledError, TransientError
from tests.unit.worker.making import error_info, until
from worker import keys, redis_client
from worker.concurrency import FIRST, Concurrency, is_overload
from worker.redis_client import run_script, text
from worker.stop import Stop, StoppedError, StopReason

LUA = Path(redis_client.__file__).with_name("lua")
KEYS = (keys.concurrency("endpoint", "gpt-x"), keys.shares("endpoint", "gpt-x"))


@asynccontextmanager
async def _sharing(
    redis: Redis, *names: str, most: int | None = None
) -> AsyncIterator[list[Concurrency]]:
    async with anyio.create_task_group() as tasks:
        yield [Concurrency(redis, KEYS, tasks, name=name, most=most) for name in names]
        tasks.cancel_scope.cancel()


async def _look(
    redis: Redis,
    process: str = "a",
    *,
    in_flight: int = 0,
    demand: int = 1000,
    most: int = 0,
    answers: int = 0,
    latency_s: float = 0.0,
    overloads: int = 0,
    share_us: int = 10**7,
) -> tuple[int, int]:
    adaptive = int(not most)
    told = [answers, int(answers * latency_s * 1e6), overloads]
    args = [process, share_us, in_flight, demand, most, adaptive, *told, FIRST]
    quota, limit = await run_script(redis, "concurrency", keys=KEYS, args=args)
    return int(quota), int(limit)


async def _window(redis: Redis, *, overloads: int = 0, latency_s: float = 0.01) -> int:
    """One window in which all permits are in use; the limit after it."""
    await redis.hset(KEYS[0], "window_us", "1")  # long ago, but not the minute without answers
    _, limit = await _look(redis, in_flight=10**6, answers=100 - overloads, latency_s=latency_s,
                           overloads=overloads)  # fmt: skip
    return limit


async def test_shares_never_exceed_the_bound_while_processes_come_and_go(redis: Redis) -> None:
    first = await _look(redis, "a", most=10)
    too_early = await _look(redis, "b", most=10)
    shrunk = await _look(redis, "a", most=10, in_flight=10)
    still_in_flight = await _look(redis, "b", most=10)
    await _look(redis, "a", most=10, in_flight=5)

    assert (first, too_early, shrunk) == ((10, 10), (0, 10), (5, 10))
    assert still_in_flight == (0, 10)
    assert await _look(redis, "b", most=10) == (5, 10)


async def test_a_process_gets_no_more_than_it_has_use_for(redis: Redis) -> None:
    await _look(redis, "a", most=10, demand=2)

    assert await _look(redis, "b", most=10) == (8, 10)


async def test_a_dead_process_leaves_its_share_to_the_others(redis: Redis) -> None:
    await _look(redis, "dead", most=10, share_us=50_000)
    with anyio.fail_after(10):
        while (await _look(redis, "b", most=10, share_us=50_000))[0] < 10:
            pass


async def test_after_a_silence_of_all_processes_each_has_time_to_call_again(redis: Redis) -> None:
    """Redis was away for longer than a share counts: what the others have in flight still is."""
    for name in ("a", "b", "a", "b"):
        await _look(redis, name, most=10, in_flight=5, share_us=50_000)
    await asyncio.sleep(0.06)

    first_back = await _look(redis, "b", most=10, in_flight=5, share_us=50_000)
    with anyio.fail_after(10):
        while (await _look(redis, "b", most=10, in_flight=5, share_us=50_000))[0] < 10:
            pass  # the other one has died meanwhile

    assert first_back == (5, 10)


@pytest.mark.parametrize("demands", [(1000, 1000, 1000), (256, 2, 1)])
async def test_fewer_permits_than_processes_go_round(
    redis: Redis, demands: tuple[int, int, int]
) -> None:
    """One permit, three processes: in each turn one has it, and all of them in three turns."""
    script = (LUA / "concurrency.lua").read_text()
    had: list[str] = []
    for turn in range(3):
        held = script.replace("math.floor(now_us / TURN_US)", str(turn))
        for _ in range(2):  # whoever had it gives it up, and the next one gets it
            quotas = {}
            for name, demand in zip("abc", demands, strict=True):
                args: list[Any] = [name, 10**7, 0, demand, 1, 0, 0, 0, 0, FIRST]
                quotas[name] = int((await cast("Any", redis.eval(held, 2, *KEYS, *args)))[0])
        assert sum(quotas.values()) == 1
        had += [name for name, quota in quotas.items() if quota]

    assert sorted(had) == ["a", "b", "c"]


async def test_the_limit_doubles_until_more_in_flight_bring_nothing(redis: Redis) -> None:
    """This endpoint bears 100: beyond, latency grows in proportion, and it is cut by quarters."""
    limits = [(await _look(redis))[1]]
    for _ in range(8):
        now = limits[-1]
        limits.append(await _window(redis, latency_s=0.01 * max(1.0, now / 100)))

    assert limits[:4] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST]
    assert max(limits) == 8 * FIRST
    assert limits[4:6] == [6 * FIRST, 4.5 * FIRST]
    assert 100 < limits[-1] < 150


async def test_refusals_for_want_of_capacity_cut_the_limit_and_it_recovers_by_steps(
    redis: Redis,
) -> None:
    await _look(redis)
    cut = await _window(redis, overloads=50)
    after = await _window(redis)

    assert cut == int(FIRST * 0.7)
    assert after == cut + 1


async def test_a_cut_goes_below_what_is_in_flight_at_once_and_doubles_back_up(
    redis: Redis,
) -> None:
    """What was refused is not in flight: 20 of 32 were, so 14 may be, then 22, then steps."""
    await _look(redis)
    _, cut = await _look(redis, in_flight=20, answers=5, latency_s=0.01, overloads=12)
    back = [await _window(redis) for _ in range(2)]

    assert (cut, back) == (14, [22, 23])


async def test_a_refused_request_leaves_its_permit_until_the_next_look(redis: Redis) -> None:
    """Else the next request would be refused as fast as this one was."""
    async with _sharing(redis, "a", most=5) as [concurrency]:
        for _ in range(5):
            await concurrency.enter(Stop(), is_paced=True)
        before = concurrency._quota
        for _ in range(2):
            concurrency.leave(error=TransientError(error_info("unavailable", status=503)))

        assert (before, concurrency._quota) == (5, 3)


async def test_single_failures_are_no_sign_of_overload(redis: Redis) -> None:
    await _look(redis)

    assert await _window(redis, overloads=4) == 2 * FIRST


async def test_the_limit_does_not_grow_where_it_is_not_used(redis: Redis) -> None:
    await _look(redis)
    await redis.hset(KEYS[0], "window_us", "1")

    assert await _look(redis, in_flight=3, answers=100, latency_s=0.01) == (FIRST, FIRST)


async def test_no_more_than_the_bound_are_in_flight_over_all_processes(redis: Redis) -> None:
    in_flight = most_seen = done = 0

    async def request(concurrency: Concurrency) -> None:
        nonlocal in_flight, most_seen, done
        await concurrency.enter(Stop(), is_paced=True)
        in_flight += 1
        most_seen = max(most_seen, in_flight)
        await asyncio.sleep(0.002)
        in_flight -= 1
        done += 1
        concurrency.leave(latency_s=0.002)

    async with _sharing(redis, "a", "b", "c", most=7) as sharing:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for concurrency in sharing * 60:
                    tasks.start_soon(request, concurrency)

    assert (most_seen <= 7, done) == (True, 180)


async def test_where_limits_pace_and_no_bound_is_set_nobody_waits(redis: Redis) -> None:
    async with _sharing(redis, "a") as [concurrency]:
        for _ in range(1000):
            await concurrency.enter(Stop(), is_paced=True)

    assert concurrency.in_flight == 1000
    assert not await redis.exists(*KEYS)


async def test_a_wait_for_a_permit_ends_with_the_batch_and_says_what_it_waits_for(
    redis: Redis,
) -> None:
    stop = Stop()
    async with _sharing(redis, "a", most=1) as [concurrency], anyio.create_task_group() as tasks:
        await concurrency.enter(stop, is_paced=True)

        async def enter() -> None:
            with pytest.raises(StoppedError):
                await concurrency.enter(stop, is_paced=True)

        tasks.start_soon(enter)
        await until(lambda: concurrency.waiting_for == "concurrency (1 at once)")
        stop.set(StopReason.SHUTDOWN)

    assert concurrency.in_flight == 1


async def test_a_request_that_begins_as_the_process_signs_off_is_counted(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = asyncio.Event()

    async def slowly(*args: Any, **kwargs: Any) -> Any:
        reply = await run_script(*args, **kwargs)
        if not concurrency.in_flight:
            began.set()
            await asyncio.sleep(0.01)
        return reply

    monkeypatch.setattr("worker.concurrency.run_script", slowly)
    async with _sharing(redis, "a", most=2) as [concurrency]:
        await concurrency.enter(Stop(), is_paced=True)
        concurrency.leave()
        began.clear()
        await began.wait()
        await concurrency.enter(Stop(), is_paced=True)
        await asyncio.sleep(0.2)
        assert text(await redis.hget(KEYS[1], "a")).startswith("1 1 ")


async def test_a_share_that_could_not_be_given_back_at_first_is_given_back_later(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 2

    async def flaky(*args: Any, **kwargs: Any) -> Any:
        nonlocal failures
        if not concurrency.in_flight and failures and concurrency.limit:
            failures -= 1
            raise StoreError("Redis cannot be reached")
        return await run_script(*args, **kwargs)

    monkeypatch.setattr("worker.concurrency.run_script", flaky)
    async with _sharing(redis, "a", most=2) as [concurrency]:
        await concurrency.enter(Stop(), is_paced=True)
        concurrency.leave()
        await asyncio.sleep(0.5)
        left = await redis.exists(KEYS[1])

    assert (failures, left) == (0, 0)


async def test_who_asks_after_the_stop_leaves_no_permit_taken(redis: Redis) -> None:
    stop = Stop()
    async with _sharing(redis, "a", most=1) as [concurrency]:
        await concurrency.enter(Stop(), is_paced=True)
        stop.set(StopReason.PAUSED)
        with pytest.raises(StoppedError):
            await concurrency.enter(stop, is_paced=True)
        concurrency.leave()

    assert concurrency.in_flight == 0


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (ThrottledError(error_info("429", status=429)), True),
        (ThrottledError(error_info("429", status=429), retry_after_s=1), False),
        (TransientError(error_info("unavailable", status=503)), True),
        (TransientError(error_info("timed out")), True),
        (TransientError(error_info("server error", status=500)), False),
        (RowError(error_info("bad", status=400)), False),
    ],
)
def test_signs_of_overload(error: RequestError, is_one: bool) -> None:
    assert is_overload(error, is_paced=True) is is_one


def test_where_no_limit_is_known_a_429_with_a_time_is_one_too() -> None:
    error = ThrottledError(error_info("429", status=429), retry_after_s=0.01)

    assert is_overload(error, is_paced=False)


@pytest.mark.parametrize(("is_paced", "left"), [(True, 5), (False, 3)])
async def test_429s_leave_fewer_permits_where_nothing_else_paces(
    redis: Redis, *, is_paced: bool, left: int
) -> None:
    """A limit of 100 a second that no header tells was met with 2,700 refusals a second."""
    async with _sharing(redis, "a", most=5) as [concurrency]:
        for _ in range(5):
            await concurrency.enter(Stop(), is_paced=is_paced)
        for _ in range(2):
            error = ThrottledError(error_info("429", status=429), retry_after_s=0.01)
            concurrency.leave(error=error)

        assert concurrency._quota == left
