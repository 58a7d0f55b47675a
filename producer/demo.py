"""The demo: the project's own table of reviews through everything on this machine.

Without a key in the environment the API is simulated, and every line that could be taken for a
model's says so.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import click

from flavor.types import Json
from producer.intake import SubmitOptions
from producer.local import LocalOptions, LocalResult, run_locally
from producer.outcomes import View, open_outcomes
from producer.services import open_services
from producer.simulator import SimulatorSettings, serve
from worker.jobs import JobSpec
from worker.runs import Runs
from worker.settings import Settings

DEMO_INPUT = Path(__file__).with_name("data") / "demo_reviews.csv"
_PROMPT = "Classify the sentiment of this review as positive, negative or neutral: {text}"
_SHOWN_ROWS = 6
_LATENCY_S = 0.3


async def run_demo(settings: Settings) -> LocalResult:
    """Run the demo's job to its end and keep its first rows for showing."""
    is_simulated = not os.environ.get("OPENAI_API_KEY")
    options = SubmitOptions(
        input_path=str(DEMO_INPUT),
        prompt=_PROMPT,
        openai_model="gpt-4o-mini",
        params={"temperature": 0},
        id_column="review",
        batch_size=10,
        run_name="demo: sentiment of reviews",
        tags={"batch.simulated": str(is_simulated).lower()},
    )
    async with _api(is_simulated=is_simulated) as environment:
        result = await run_locally(settings, options, LocalOptions(environment=environment))
    changed = settings.model_copy(update={"tracking_uri": result.tracking_uri})
    return dataclasses.replace(
        result,
        is_simulated=is_simulated,
        preview=await _first_rows(changed, result.status.job_id),
    )


@asynccontextmanager
async def _api(*, is_simulated: bool) -> AsyncIterator[dict[str, str]]:
    """The endpoint that the workers shall use, as environment variables."""
    if not is_simulated:
        click.echo("using the API of OPENAI_API_KEY: this costs about a tenth of a cent", err=True)
        yield {}
        return
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[str] = loop.create_future()
    server = loop.create_task(
        serve(SimulatorSettings(latency_s=_LATENCY_S), on_ready=ready.set_result)
    )
    try:
        waits: list[asyncio.Future[Any]] = [server, ready]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            server.result()  # it could not start: raises why
        click.echo("no OPENAI_API_KEY: the API and its answers are SIMULATED", err=True)
        yield {
            "OPENAI_BASE_URL": ready.result(),
            "OPENAI_API_BASE": "",
            "OPENAI_API_TYPE": "",
            "OPENAI_API_KEY": f"simulated-{secrets.token_hex(4)}",
        }
    finally:
        server.cancel()
        await asyncio.wait({server})


async def _first_rows(settings: Settings, job_id: str) -> list[dict[str, Json]]:
    async with open_services(settings) as services:
        spec = await asyncio.to_thread(services.runs.spec, job_id)
        return await asyncio.to_thread(_read_rows, services.runs, spec)


def _read_rows(runs: Runs, spec: JobSpec) -> list[dict[str, Json]]:
    shown = {"row": "row_id", "text": "text", "answer": "output", "tokens": "total_tokens"}
    with open_outcomes(runs, spec, View(columns=list(shown.values()))) as outcomes:
        return [
            {title: row[column] for title, column in shown.items()}
            for row in islice(outcomes.rows(), _SHOWN_ROWS)
        ]
