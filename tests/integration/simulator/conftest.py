"""A simulated API on a real port of loopback, served by the test's own event loop."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import AsyncOpenAI

from producer.simulator import SimulatorSettings, serve

Start = Callable[..., Awaitable[str]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a simulation with these settings; its base URL."""
    servings: list[asyncio.Future[None]] = []

    async def start_one(**options: Any) -> str:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        settings = SimulatorSettings.model_validate(options)
        servings.append(asyncio.ensure_future(serve(settings, on_ready=ready.set_result)))
        return await asyncio.wait_for(ready, 5)

    yield start_one
    for serving in servings:
        serving.cancel()
        with suppress(asyncio.CancelledError):  # which we just asked for
            await serving


@pytest.fixture
async def connect(start: Start) -> AsyncIterator[Callable[..., Awaitable[AsyncOpenAI]]]:
    """An SDK client of a new simulation."""
    clients: list[AsyncOpenAI] = []

    async def connect_one(*, api_key: str = "sk-test", **options: Any) -> AsyncOpenAI:
        base_url = await start(**options)
        client = AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=10)
        clients.append(client)
        return client

    yield connect_one
    for client in clients:
        await client.close()


class Wire:
    """A raw connection."""

    def __init__(self, base_url: str) -> None:
        self._address = urlsplit(base_url)

    async def __aenter__(self) -> "Wire":
        host, port = self._address.hostname, self._address.port
        self.reader, self.writer = await asyncio.open_connection(host, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with suppress(ConnectionError):  # a reset is what some tests are about
            await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)

    async def response(self) -> tuple[int, Any]:
        """The status and JSON body of the next response."""
        head = await self.head()
        (length,) = (
            int(line.split(b": ")[1])
            for line in head.splitlines()
            if line.startswith(b"content-length")
        )
        body = await asyncio.wait_for(self.reader.readexactly(length), 5)
        return int(head[9:12]), json.loads(body)

    async def rest(self) -> bytes:
        """All until the other side closes."""
        return await asyncio.wait_for(self.reader.read(), 5)


@pytest.fixture
def open_wire() -> Callable[[str], Wire]:
    return Wire
