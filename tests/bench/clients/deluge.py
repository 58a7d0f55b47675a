"""lm-deluge: its client with a registered model, limits that are never met, no progress bar."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import lm_deluge
from lm_deluge.models import register_model

from tests.bench.clients.job import KEY, OPENAI_MODEL, SYSTEM, Job, run


def deluge(job: Job) -> Callable[[list[str]], list[str | None]]:
    """Set up."""
    os.environ["BENCH_KEY"] = KEY
    register_model(
        id="bench",
        name=OPENAI_MODEL,
        api_base=job.base_url,
        api_key_env_var="BENCH_KEY",
        regions=[],
    )
    client = lm_deluge.LLMClient(
        "bench",
        max_requests_per_minute=100_000_000,
        max_tokens_per_minute=100_000_000_000,
        max_concurrent_requests=job.concurrency,
    )

    def send(texts: list[str]) -> list[str | None]:
        return asyncio.run(_send(client, texts))

    return send


async def _send(client: lm_deluge.LLMClient, texts: list[str]) -> list[str | None]:
    prompts = [lm_deluge.Conversation().system(SYSTEM).user(text) for text in texts]
    answers = await client.process_prompts_async(prompts, show_progress=False)
    return [answer.completion for answer in answers]


if __name__ == "__main__":
    run(deluge)
