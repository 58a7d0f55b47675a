"""LiteLLM's SDK: ``acompletion``, so many at a time, on its own aiohttp transport."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"  # else its import waits for a download

import litellm

from tests.bench.clients.job import KEY, OPENAI_MODEL, Job, messages, run


def sdk(job: Job) -> Callable[[list[str]], list[str | None]]:
    """Set up."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    litellm.telemetry = False

    def send(texts: list[str]) -> list[str | None]:
        return loop.run_until_complete(_send(job, texts))

    return send


async def _send(job: Job, texts: list[str]) -> list[str | None]:
    answers: list[str | None] = [None] * len(texts)
    rows = iter(enumerate(texts))

    async def slot(rows: Iterator[tuple[int, str]]) -> None:
        for index, text in rows:
            completion = await litellm.acompletion(
                model=f"openai/{OPENAI_MODEL}",
                messages=messages(text),
                api_base=job.base_url,
                api_key=KEY,
            )
            answers[index] = completion.choices[0].message.content

    await asyncio.gather(*(slot(rows) for _ in range(job.concurrency)))
    return answers


if __name__ == "__main__":
    run(sdk)
