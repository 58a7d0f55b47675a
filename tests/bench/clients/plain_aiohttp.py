"""Plain aiohttp: one session, a fixed number of tasks, JSON there and back: a library's floor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import aiohttp
import uvloop

from tests.bench.clients.job import KEY, OPENAI_MODEL, Job, messages, run


def plain(job: Job) -> Callable[[list[str]], list[str | None]]:
    """Set up."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    session = loop.run_until_complete(_session(job))

    def send(texts: list[str]) -> list[str | None]:
        return loop.run_until_complete(_send(session, job, texts))

    return send


async def _session(job: Job) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=job.concurrency)
    return aiohttp.ClientSession(
        connector=connector,
        headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
    )


async def _send(session: aiohttp.ClientSession, job: Job, texts: list[str]) -> list[str | None]:
    answers: list[str | None] = [None] * len(texts)
    rows = iter(enumerate(texts))

    async def slot(rows: Iterator[tuple[int, str]]) -> None:
        for index, text in rows:
            body = json.dumps({"model": OPENAI_MODEL, "messages": messages(text)}).encode()
            async with session.post(f"{job.base_url}/chat/completions", data=body) as response:
                payload = json.loads(await response.read())
            answers[index] = payload["choices"][0]["message"]["content"]

    await asyncio.gather(*(slot(rows) for _ in range(job.concurrency)))
    return answers


if __name__ == "__main__":
    run(plain)
