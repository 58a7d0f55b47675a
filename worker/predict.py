"""Rows through a model that is no OpenAI flavor: its own ``predict``, in a thread, by batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial

from flavor.errors import RowError
from flavor.model import PyfuncModel
from flavor.types import Row
from worker.jobs import Outcome, Verdict


async def predict_rows(
    model: PyfuncModel,
    rows: Sequence[Row],
    *,
    threads: Executor | None = None,
    record: Callable[[Sequence[Outcome]], None] = lambda _: None,
) -> list[Outcome]:
    """One outcome per row, in order. Does not block the event loop; cannot be stopped half-way.

    ``predict`` fails as a whole: where it does, halving finds the rows to blame. What the model
    spends is unknown to us, so usage and cost stay empty. ``record`` takes the outcomes of a half
    as soon as they are known.
    """
    started_s = time.monotonic()
    try:
        loop = asyncio.get_running_loop()
        replies = await loop.run_in_executor(threads, model.predict, rows)
    except RowError as error:
        if len(rows) > 1:
            half = len(rows) // 2
            again = partial(predict_rows, model, threads=threads, record=record)
            first = await again(rows[:half])
            record(first)
            return first + await again(rows[half:])
        return [
            Outcome(
                row_id=rows[0].row_id,
                index=rows[0].index,
                verdict=Verdict.REJECTED,
                attempts=1,
                error=error.info,
            )
        ]
    latency_s = time.monotonic() - started_s
    return [
        Outcome(
            row_id=row.row_id,
            index=row.index,
            verdict=Verdict.SUCCEEDED,
            output=reply.output,
            attempts=1,
            latency_s=latency_s,
        )
        for row, reply in zip(rows, replies, strict=True)
    ]
