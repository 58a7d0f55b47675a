"""A pilot: some random rows are sent for real, as a job of its own, and say what all will take."""

from __future__ import annotations

import dataclasses
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from flavor.errors import InputError
from flavor.types import Task
from producer.estimate import Estimate, Measured, Range, duration_of, sum_up
from producer.intake import Asked, SubmitOptions
from producer.interval import Interval, Known, interval_of_total
from producer.local import LocalOptions, run_locally
from producer.sample import Sample
from producer.source import SourceRow, SourceRows
from producer.spool import acceptable
from producer.survey import Survey
from worker.jobs import JobState, Limits
from worker.run_files import parts_by_batch, read_parts
from worker.runs import Runs
from worker.settings import Settings
from worker.status import JobStatus

_MEASURED = ("prompt_tokens", "completion_tokens", "total_tokens", "cost_usd")


async def measure(
    settings: Settings, options: SubmitOptions, local: LocalOptions, *, rows: int
) -> tuple[Estimate, JobStatus]:
    """Read the whole input, send ``rows`` of its rows, drawn at random, and wait for them.

    The pilot is a job like any other, with the rows' own ids: ``submit --pilot-of`` takes its
    outcomes over. Where it does not complete, the estimate is what it would be without.

    Raises:
        BatchError: the input, the set-up or a service is at fault.
    """
    draw = _Draw(rows)
    result = await run_locally(
        settings,
        dataclasses.replace(
            options,
            run_name=options.run_name or f"pilot of {options.input_name or options.input_path}",
            tags={**options.tags, "batch.pilot": "true"},
        ),
        local,
        through=draw,
    )
    status = result.status
    pilot = Measured(
        job_id=status.job_id, state=status.state, rows=status.rows_total, reason=status.reason
    )
    if status.state is JobState.COMPLETED:
        runs = Runs(result.tracking_uri)
        pilot = dataclasses.replace(pilot, limits=_limits(runs, pilot.job_id, draw.estimate.limits))
        pilot = _measured(pilot, _outcomes(runs, pilot.job_id), draw=draw)
    return dataclasses.replace(draw.estimate, pilot=pilot), result.status


@dataclass(slots=True)
class _Drawn:
    row: SourceRow
    tokens: int  # of its prompt, as counted


class _Draw:
    """Goes through all rows, counts each, and passes a sample of them on; for one input."""

    def __init__(self, size: int) -> None:
        self._sample: Sample[_Drawn] = Sample(size, random.SystemRandom())
        self._estimate: Estimate | None = None
        self.counted_total = 0

    def __call__(self, asked: Asked, rows: SourceRows) -> Iterator[SourceRow]:
        if asked.model.task is Task.PYFUNC:
            raise InputError("--pilot measures tokens, and this model tells none")
        survey = Survey.over(asked)
        for row in acceptable(rows, has_ids=bool(asked.options.id_column)):
            self._sample.offer(_Drawn(row, survey.add(row.row)))
        self._estimate = sum_up(asked, survey, rows=rows)
        self.counted_total = survey.prompt
        self._sample.items.sort(key=lambda drawn: drawn.row.row.index)
        for place, drawn in enumerate(self._sample.items):
            yield SourceRow(dataclasses.replace(drawn.row.row, index=place), drawn.row.record)

    @property
    def estimate(self) -> Estimate:
        """What is known of all rows without the pilot."""
        if self._estimate is None:
            raise RuntimeError("there is no estimate before the rows were read")
        return self._estimate

    @property
    def counted(self) -> list[int]:
        """The tokens of each drawn row's prompt, in the pilot's order."""
        return [drawn.tokens for drawn in self._sample.items]


def _limits(runs: Runs, job_id: str, given: Limits) -> Limits:
    """What was given, and else what the pilot's answers told, if it ran for a second. Blocks."""
    told = runs.get(job_id).data.metrics
    requests, tokens = (told.get(f"limit.{unit}_per_min") for unit in ("requests", "tokens"))
    return Limits(
        requests_per_min=given.requests_per_min or (int(requests) if requests else None),
        tokens_per_min=given.tokens_per_min or (int(tokens) if tokens else None),
    )


def _outcomes(runs: Runs, job_id: str) -> pa.Table:
    """The figures of all the pilot's rows, in order. Blocks."""
    with tempfile.TemporaryDirectory(prefix="pilot-") as folder:
        parts = read_parts(
            runs, job_id, parts_by_batch(runs, job_id), folder=Path(folder),
            columns=lambda _: ["index", *_MEASURED],
        )  # fmt: skip
        return pa.concat_tables([part for _, part in parts])


def _measured(pilot: Measured, outcomes: pa.Table, *, draw: _Draw) -> Measured:
    """What the pilot's rows say of all.

    A dead row counts with the nothing that it has cost: there will be others like it.
    """
    estimate = draw.estimate
    known = Known(of_sample=draw.counted, total=draw.counted_total)

    def interval(column: str) -> Interval | None:
        found = outcomes[column]
        if found.null_count == len(found):
            return None
        sample = found.fill_null(0).to_pylist()
        return interval_of_total(sample, rows=estimate.rows, known=known)

    prompt, completion, total, cost = map(interval, _MEASURED)
    used = Range(low=total.low, high=total.high) if total else None
    return dataclasses.replace(
        pilot,
        prompt=prompt,
        completion=completion,
        total=total,
        cost_usd=cost,
        duration=duration_of(pilot.limits, requests=estimate.requests, tokens=used),
    )
