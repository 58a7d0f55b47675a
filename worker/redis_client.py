"""The connection to Redis: the scripts of ``lua/``, and Redis' errors in our words.

``store``, ``ledger`` and ``limiter`` stand on this; nobody else imports ``redis``. A call is tried
once: what to do when Redis is away is the caller's decision, since only it knows what it holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)

from flavor.errors import InputError, StoreError

_LUA = Path(__file__).with_name("lua")
_T = TypeVar("_T")

SOCKET_TIMEOUT_S = 15
"""Longer than any command of ours takes; shorter than a lease, so that a dead link is noticed."""


def connect(url: str) -> Redis:
    """A client that connects on first use. Belongs to the event loop that first uses it.

    Raises:
        InputError: the URL is none that redis-py knows.
    """
    try:
        return Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=5,
            socket_keepalive=True,
            health_check_interval=10,
            max_connections=64,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise InputError(f"REDIS_URL: {error}") from None


def without_password(url: str) -> str:
    """The URL as it may be shown: host, port and database, no user and no password."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


_BEGINNINGS = {"checkpoint": "tally", "count_off": "tally"}
"""Scripts that share their first lines, and the file of these: Redis knows no modules."""


@cache
def _script(name: str) -> tuple[str, str]:
    files = [_BEGINNINGS[name], name] if name in _BEGINNINGS else [name]
    text = "".join((_LUA / f"{file}.lua").read_text("utf-8") for file in files)
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), text


async def run_script(redis: Redis, name: str, *, keys: Sequence[str], args: Sequence[Any]) -> Any:  # noqa: ANN401 - a Lua reply
    """Run one script of ``lua/`` and return its raw reply. Raises ``StoreError``."""
    sha, text = _script(name)
    async with translated_errors():
        try:
            return await _awaitable(redis.evalsha(sha, len(keys), *keys, *args))
        except NoScriptError:  # a Redis that was restarted or flushed
            return await _awaitable(redis.eval(text, len(keys), *keys, *args))


class ScriptPipeline:
    """Several scripts in one round trip; each reply in its place. Not a transaction."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._calls: list[tuple[str, Sequence[str], Sequence[Any]]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> None:
        """Queue one call."""
        self._calls.append((name, keys, args))

    async def execute(self) -> list[Any]:
        """Send all calls and return their replies in order. Raises ``StoreError``."""
        async with translated_errors():
            try:
                return await self._send()
            except NoScriptError:
                # None of the calls ran: Redis answers NOSCRIPT before it does anything.
                for name in {name for name, _, _ in self._calls}:
                    await _awaitable(self._redis.script_load(_script(name)[1]))
                return await self._send()

    async def _send(self) -> list[Any]:
        pipe: Pipeline = self._redis.pipeline(transaction=False)
        for name, keys, args in self._calls:
            pipe.evalsha(_script(name)[0], len(keys), *keys, *args)
        return list(await pipe.execute())


@asynccontextmanager
async def translated_errors() -> AsyncIterator[None]:
    """Redis' errors as ``StoreError``, with what to do about them."""
    try:
        yield
    except AuthenticationError as error:
        raise StoreError(f"Redis refuses the password of REDIS_URL: {error}") from error
    except ResponseError as error:
        if isinstance(error, OutOfMemoryError) or "OOM" in str(error):
            raise StoreError(
                "Redis is full (maxmemory reached): raise its limit, or wait until jobs finish"
            ) from error
        if isinstance(error, NoScriptError):
            raise
        # A pipeline's error quotes the command, and so a user's texts: the server's words suffice.
        said = str(error).rpartition("of pipeline caused error: ")[2]
        raise StoreError(f"Redis refuses: {said}") from error
    except (RedisError, OSError) as error:
        raise StoreError(f"Redis cannot be reached: {error}") from error


async def ping(redis: Redis, url: str) -> None:
    """Make sure that Redis answers and can be written to.

    Raises:
        InputError: it does not, with the remedy.
    """
    try:
        async with translated_errors():
            await _awaitable(redis.ping())
    except StoreError as error:
        raise InputError(f"{error} ({without_password(url)}); start it or set REDIS_URL") from error


async def server_id(redis: Redis) -> str:
    """The server's run id: another one after a restart, which may have lost a second's writes."""
    async with translated_errors():
        return str((await _awaitable(redis.info("server")))["run_id"])


def _awaitable(value: Any) -> Awaitable[Any]:  # noqa: ANN401
    """Redis-py types one signature for its blocking and its asyncio client; ours is asyncio."""
    return value  # type: ignore[no-any-return]


def text(value: Any) -> str:  # noqa: ANN401 - redis-py's reply types cover all its settings
    """A reply's text: with our settings bytes, and None where a field is absent."""
    return value.decode() if isinstance(value, bytes) else str(value or "")


Clock = Callable[[], float]
"""Seconds that only grow, such as ``time.monotonic``."""
