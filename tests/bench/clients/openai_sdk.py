"""AsyncOpenAI with its typed verb, on the transport that the fifth argument names."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator

import httpx2
import openai
import uvloop

from tests.bench.clients.job import KEY, OPENAI_MODEL, Job, messages, run


def sdk(job: Job) -> Callable[[list[str]], list[str | None]]:
    """Set up."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    client = loop.run_until_complete(_client(job))

    def send(texts: list[str]) -> list[str | None]:
        return loop.run_until_complete(_send(client, job, texts))

    return send


async def _client(job: Job) -> openai.AsyncOpenAI:
    limits = httpx2.Limits(
        max_connections=job.concurrency, max_keepalive_connections=job.concurrency
    )
    kind = openai.DefaultAioHttpClient if sys.argv[5] == "aiohttp" else httpx2.AsyncClient
    return openai.AsyncOpenAI(
        base_url=job.base_url, api_key=KEY, http_client=kind(limits=limits), max_retries=2
    )


async def _send(client: openai.AsyncOpenAI, job: Job, texts: list[str]) -> list[str | None]:
    answers: list[str | None] = [None] * len(texts)
    rows = iter(enumerate(texts))

    async def slot(rows: Iterator[tuple[int, str]]) -> None:
        for index, text in rows:
            completion = await client.chat.completions.create(
                model=OPENAI_MODEL,
                messages=messages(text),  # type: ignore[arg-type]
            )
            answers[index] = completion.choices[0].message.content

    await asyncio.gather(*(slot(rows) for _ in range(job.concurrency)))
    return answers


if __name__ == "__main__":
    run(sdk)
