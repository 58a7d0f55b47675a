"""A hand-written protocol that reads nothing of the answers: what a socket costs, and the
simulated API's ceiling."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import uvloop

from tests.bench.clients.job import KEY, OPENAI_MODEL, Job, messages, run

_HEAD = (
    "POST {path}/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
    "content-type: application/json\r\ncontent-length: {size}\r\n\r\n"
)


class _Connection(asyncio.Protocol):
    def __init__(self, rows: Iterator[bytes], done: Callable[[bytes], None]) -> None:
        self._rows, self._done, self._buffer = rows, done, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if separator and len(body) >= int(head.partition(b"content-length: ")[2].split(b"\r")[0]):
            self._buffer = b""
            self._done(body)
            self._next()

    def _next(self) -> None:
        row = next(self._rows, None)
        if row is None:
            self._transport.close()
        else:
            self._transport.write(row)  # type: ignore[attr-defined]


def raw(job: Job) -> Callable[[list[str]], list[str | None]]:
    """Set up."""
    loop = uvloop.new_event_loop()
    return lambda texts: loop.run_until_complete(_send(job, texts))


async def _send(job: Job, texts: list[str]) -> list[str | None]:
    url = urlsplit(job.base_url)
    answers: list[str | None] = []
    finished = asyncio.get_running_loop().create_future()

    def done(body: bytes) -> None:
        answers.append(body.decode())
        if len(answers) == len(texts):
            finished.set_result(None)

    def requests() -> Iterator[bytes]:
        for text in texts:
            body = json.dumps({"model": OPENAI_MODEL, "messages": messages(text)}).encode()
            yield (
                _HEAD.format(path=url.path, host=url.netloc, key=KEY, size=len(body)).encode()
                + body
            )

    rows = requests()
    for _ in range(job.concurrency):
        await asyncio.get_running_loop().create_connection(
            lambda: _Connection(rows, done), url.hostname or "", url.port or 80
        )
    await finished
    return answers


if __name__ == "__main__":
    run(raw)
