"""An input is read and checked as a whole before anything is written: nothing is sent here.

Whatever is wrong with the input, the model or the options shows in ``prepare``.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from producer.intake import Asked, SubmitOptions, open_rows, read_asked
from producer.pilot import Carried, carry, find_pilot, same_model
from producer.services import Services
from producer.source import SourceRow, SourceRows
from producer.spool import BatchOptions, Spool, Spooled
from worker.codec import encode_rows
from worker.runs import prepare_tracking

Through: TypeAlias = Callable[[Asked, SourceRows], Iterable[SourceRow]]
"""What stands between an input's rows and the job's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An input that was found good, on disk, with all that the job needs beside it."""

    asked: Asked
    spooled: Spooled
    input_sha256: str
    carried: Carried | None = None


@asynccontextmanager
async def prepare(
    services: Services, options: SubmitOptions, *, through: Through | None = None
) -> AsyncIterator[Prepared]:
    """Read and check everything, and keep the rows on disk for the length of the block.

    All rows go ``through`` a filter first, where there is one; it runs in a thread.

    Raises:
        InputError: something is wrong; nothing was sent or written anywhere.
    """
    await services.check_redis()
    await asyncio.to_thread(prepare_tracking, services.settings.tracking_uri)
    asked = await asyncio.to_thread(read_asked, services.settings, options)
    pilot = await find_pilot(services, options.pilot_of) if options.pilot_of else None
    if pilot is not None:
        asked = await asyncio.to_thread(same_model, pilot, asked)
    batches = BatchOptions(batch_size=asked.batch_size)
    with Spool(encode_rows, options=batches, has_ids=bool(options.id_column)) as spool:
        records, rows = open_rows(asked)
        wanted = through(asked, rows) if through else rows
        spooled = await asyncio.to_thread(spool.write, wanted)
        await asyncio.to_thread(records.finish)
        prepared = Prepared(asked=asked, spooled=spooled, input_sha256=records.input_sha256 or "")
        if pilot is not None:
            place = partial(carry, pilot, spooled, input_sha256=prepared.input_sha256)
            prepared = dataclasses.replace(prepared, carried=await asyncio.to_thread(place))
        yield prepared
