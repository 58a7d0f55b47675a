"""Kept-alive connections to one address: name look-up, TLS, time limits, reuse.

A request is sent on one connection and nowhere else. Where a kept connection turns out to be closed
before anything was written to it, another is taken; after that, nothing is repeated.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import partial
from typing import cast

import aiohttp
import anyio
from aiohappyeyeballs import AddrInfoType, start_connection
from yarl import URL

from flavor.wire import MAX_ANSWER_BYTES, Answer, Connection, unpack

CONNECT_TIMEOUT_S = 30.0

KEEP_IDLE_S = 15.0
"""A connection that was idle for so long is not used again: servers close theirs sooner or later
without a word, and a request that meets that moment is lost."""

_KEEP_ADDRESSES_S = 10.0
_NEXT_ADDRESS_S = 0.25  # source: RFC 8305, "Connection Attempt Delay"


class Pool:
    """At most ``size`` connections to the host of ``url``. Belongs to one event loop.

    An answer of more than ``most_bytes`` is refused.
    """

    def __init__(self, url: URL, *, size: int, most_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._host = url.raw_host or ""
        self._port = url.port or 0
        self._ssl = _tls() if url.scheme == "https" else None
        self._most_bytes = most_bytes
        self._free = asyncio.Semaphore(size)
        self._idle: list[Connection] = []  # the last used one last
        self._all: set[Connection] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._addresses: list[AddrInfoType] = []
        self._resolve_at_s = 0.0
        self._resolving = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    async def post(self, head: bytes, body: bytes, *, timeout_s: float) -> Answer:
        """Send a request once; its answer, whatever its status.

        ``head`` is ``wire.render_head``'s. ``timeout_s`` is from here to the whole answer.

        Raises:
            asyncio.TimeoutError: there was no answer in time.
            aiohttp.ClientError, OSError: below HTTP something failed.
        """
        async with self._free:
            began_s = self._loop.time()
            connection = self._kept(began_s) or await self._connect(timeout_s)
            timer = self._loop.call_at(began_s + timeout_s, connection.expire)
            try:
                answer = await connection.ask(head, body)
            except BaseException:
                connection.abort()
                raise
            finally:
                timer.cancel()
            if connection.is_usable:
                connection.idle_since_s = self._loop.time()
                self._idle.append(connection)
            else:
                connection.abort()
        unpack(answer, most_bytes=self._most_bytes)
        return answer

    async def close(self) -> None:
        """Close all connections, and wait until they are."""
        for connection in list(self._all):
            connection.abort()
        await self._is_empty.wait()

    def _kept(self, now_s: float) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and now_s - connection.idle_since_s < KEEP_IDLE_S:
                return connection
            connection.abort()
        return None

    async def _connect(self, timeout_s: float) -> Connection:
        try:
            with anyio.fail_after(min(timeout_s, CONNECT_TIMEOUT_S)):
                return await self._open()
        except TimeoutError as error:  # not asyncio's own before Python 3.11
            raise asyncio.TimeoutError from error

    async def _open(self) -> Connection:
        sock = await start_connection(
            await self._next_addresses(), happy_eyeballs_delay=_NEXT_ADDRESS_S
        )
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, connection = await self._loop.create_connection(
                partial(Connection, self._lost, most_bytes=self._most_bytes),
                sock=sock,
                ssl=self._ssl,
                server_hostname=self._host.rstrip(".") if self._ssl else None,
            )
        except BaseException:
            sock.close()
            raise
        if connection.is_usable:  # else it is lost already, and said so
            self._all.add(connection)
            self._is_empty.clear()
        return connection

    async def _next_addresses(self) -> list[AddrInfoType]:
        """The host's addresses, another one first each time; looked up every few seconds."""
        async with self._resolving:
            if self._loop.time() >= self._resolve_at_s:
                if not self._host:
                    raise aiohttp.InvalidURL(self._host)
                try:
                    found = await self._loop.getaddrinfo(
                        self._host, self._port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
                    )
                except UnicodeError as error:  # an empty label, or one of over 63 characters
                    raise aiohttp.InvalidURL(self._host) from error
                self._addresses = cast("list[AddrInfoType]", found)
                self._resolve_at_s = self._loop.time() + _KEEP_ADDRESSES_S
            self._addresses = [*self._addresses[1:], *self._addresses[:1]]
            return self._addresses

    def _lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        if not self._all:
            self._is_empty.set()


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
