"""The connection to Redis: scripts that survive its restart, and its errors in our words."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from redis import exceptions
from redis.asyncio import Redis

from flavor.errors import InputError, StoreError
from worker.redis_client import (
    ScriptPipeline,
    connect,
    ping,
    run_script,
    text,
    translated_errors,
    without_password,
)

KEY = "limit:{endpoint:model}"
PAUSE: Sequence[int] = (1_000_000, 0)


async def test_a_script_runs_on_a_redis_that_has_forgotten_it(redis: Redis) -> None:
    await run_script(redis, "pause", keys=[KEY], args=PAUSE)
    await redis.script_flush()

    reply = await run_script(redis, "pause", keys=[KEY], args=PAUSE)

    assert reply == 2


async def test_scripts_in_one_round_trip_run_once_each_on_a_redis_that_has_forgotten_them(
    redis: Redis,
) -> None:
    await redis.script_flush()
    calls = ScriptPipeline(redis)
    for _ in range(3):
        calls.add("pause", [KEY], PAUSE)

    replies = await calls.execute()

    assert len(calls) == 3
    assert replies == [1, 2, 3]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (exceptions.AuthenticationError("WRONGPASS"), "refuses the password"),
        (
            exceptions.OutOfMemoryError("OOM command not allowed"),
            "is full",
        ),
        (exceptions.ResponseError("OOM command not allowed"), "is full"),
        (
            exceptions.OutOfMemoryError("Command # 1 (SET k v) of pipeline caused error: m"),
            "is full",
        ),
        (
            exceptions.ResponseError("Command # 1 (SET k secret) of pipeline caused error: ERR no"),
            "^Redis refuses: ERR no$",
        ),
        (exceptions.ResponseError("WRONGTYPE"), "refuses: WRONGTYPE"),
        (exceptions.TimeoutError("Timeout reading"), "cannot be reached"),
        (ConnectionResetError("reset by peer"), "cannot be reached"),
    ],
)
async def test_redis_errors_are_said_in_our_words(error: Exception, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        async with translated_errors():
            raise error


async def test_a_forgotten_script_is_told_apart() -> None:
    with pytest.raises(exceptions.NoScriptError):
        async with translated_errors():
            raise exceptions.NoScriptError("NOSCRIPT")


async def test_a_redis_that_answers_is_fine(redis: Redis) -> None:
    await ping(redis, "redis://here")


async def test_a_redis_that_is_away_is_named_without_its_password() -> None:
    url = "redis://user:secret@127.0.0.1:1/3"
    client = connect(url)

    with pytest.raises(InputError, match=r"redis://127.0.0.1:1/3\); start it or set") as caught:
        await ping(client, url)
    await client.aclose()

    assert "secret" not in str(caught.value)


def test_a_url_of_another_kind_is_an_input_error() -> None:
    with pytest.raises(InputError, match="REDIS_URL"):
        connect("http://somewhere")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rediss://u:p@host:6380/1", "rediss://host:6380/1"),
        ("redis://:p@host", "redis://host"),
        ("redis://host/0", "redis://host/0"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_a_replys_text() -> None:
    assert (text(b"\xc3\xa9"), text(None), text("a"), text(3)) == ("é", "", "a", "3")
