"""Continue a job, or send its dead rows again: from Redis where it still knows the job, else from
the run alone (``job.json``, ``input/``, ``outputs/``).

Rows that have an outcome are not sent again; their outcomes go with the others into the part that
is written anew.
"""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flavor.errors import InputError, StoreError
from flavor.model import ModelSpec, read_spec
from flavor.types import Row
from producer.caps import with_cap
from producer.formats import TEXT_COLUMN, Format, Record
from producer.reading import pause_reason
from producer.services import Services
from producer.source import SourceOptions, Wanted, read_rows
from worker.broker import publish
from worker.codec import encode_rows
from worker.inputs import InputRow
from worker.jobs import Cap, JobSpec, JobState, Outcome, Verdict
from worker.parts import read_outcomes
from worker.run_files import InputReader, parts_by_batch
from worker.runs import OUTPUTS, RESCUED, ROWS_IN_DOUBT, SPEC_FILE, Runs
from worker.status import JobStatus
from worker.totals import Totals

RESUMED = frozenset({Verdict.CANCELLED})
RETRIED = frozenset({Verdict.CANCELLED, Verdict.REJECTED, Verdict.EXHAUSTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBatchInput:
    """A batch that has rows to send: all its rows, and the outcomes that stay."""

    batch: int
    rows: Sequence[Row]
    kept: Sequence[Outcome]


async def resume_job(
    services: Services,
    job_id: str,
    *,
    redo: frozenset[Verdict] = RESUMED,
    cap: Cap | None = None,
) -> JobSpec:
    """Make the job run again, and publish its batches. Returns when workers can see it.

    ``redo`` are the verdicts that shall not stand: with ``RETRIED`` dead rows are sent again.
    ``cap`` is what it may spend from now on, what was spent before included; what it leaves open
    stays as it was.

    Raises:
        InputError: nobody knows the job, there is nothing to do, its input was not logged, or the
            cap has no room.
    """
    await services.check_redis()
    status = await services.store.status(job_id)
    if status is not None and not status.state.is_final:
        if redo is not RESUMED:
            raise InputError(
                f"job {job_id} is {status.state.value}: retry its dead rows when it has ended"
            )
        return await _continue(services, status, cap or Cap())
    return await _rebuild(services, job_id, redo=redo, cap=cap or Cap())


async def _continue(services: Services, status: JobStatus, cap: Cap) -> JobSpec:
    """Redis has the job: a paused one may run again, a running one loses at most messages."""
    job_id = status.job_id
    spec = await services.store.spec(job_id)
    if spec is None:
        raise StoreError(f"job {job_id} is gone from Redis: call resume again")
    raised = await services.store.cap(job_id)  # by an earlier resume, perhaps
    spec = with_cap(
        dataclasses.replace(spec, cap=raised),
        cap,
        spent_usd=status.cost_usd or 0.0,
        tokens=status.tokens.total,
        reason=status.reason if status.state is JobState.PAUSED else None,
    )
    await _keep_cap(services, spec, cap)
    if status.state is JobState.PAUSED:
        await services.store.unpause(job_id)
    batches = await services.store.unclaimed(job_id)
    await _publish(services, spec, batches)
    return spec


async def _rebuild(
    services: Services, job_id: str, *, redo: frozenset[Verdict], cap: Cap
) -> JobSpec:
    """Redis has nothing, or only the memory of an ended job: write the batches anew."""
    spec = await asyncio.to_thread(services.runs.spec, job_id)
    if not spec.is_input_logged:
        raise InputError(f"job {job_id} kept no input in its run (--no-log-input): submit it anew")
    run = await asyncio.to_thread(services.runs.get, job_id)
    # Before anything is written: what Redis remembers of the job may have to stay.
    spec = with_cap(
        spec,
        cap,
        spent_usd=run.data.metrics.get("cost.usd", 0.0),
        tokens=int(run.data.metrics.get("tokens.total", 0)),
        reason=pause_reason(run),
    )
    model = await asyncio.to_thread(read_spec, spec.model_uri, openai_model=spec.openai_model)
    totals = Totals()
    numbers: dict[str, int | None] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="resume-") as folder:
            reader = _BatchReader(services.runs, spec, model=model, folder=Path(folder))
            for found in reader.batches(redo, totals):
                if not numbers:  # not before: what Redis remembers of an ended job may have to stay
                    await services.store.begin(spec)
                await services.store.add_batches(job_id, [(found.batch, encode_rows(found.rows))])
                await services.store.add_outcomes(job_id, found.batch, found.kept)
                numbers[str(found.batch)] = len(found.rows)
        if numbers:
            await _keep_cap(services, spec, cap)
    except BaseException:
        if numbers:
            await services.store.discard(job_id, spec.batches)
        raise
    if not numbers:
        raise InputError(f"job {job_id} has no rows left to send")
    sent = _requests_so_far(run.data.metrics)
    await services.store.commit(job_id, counts={**totals.counts(), **sent})
    await asyncio.to_thread(services.runs.reopen, job_id)
    await _publish(services, spec, numbers)
    return spec


async def _publish(services: Services, spec: JobSpec, batches: Mapping[str, int | None]) -> None:
    await asyncio.to_thread(
        publish,
        services.app,
        spec.job_id,
        name=spec.name,
        batches=batches,
        priority=spec.priority,
    )


async def _keep_cap(services: Services, spec: JobSpec, cap: Cap) -> None:
    """Let the workers, and a later resume from the run alone, know a cap that has changed."""
    if cap:
        await asyncio.to_thread(services.runs.log_text, spec.job_id, SPEC_FILE, spec.to_json())
        await services.store.set_cap(spec.job_id, cap)


def _requests_so_far(metrics: Mapping[str, float]) -> dict[str, int]:
    """What the run's metrics say of requests: no outcome knows how many there were."""
    names = [f"requests.{name}" for name in ("sent", "answered", "retried", "throttled")]
    return {name.replace(".", "_"): int(metrics.get(name, 0)) for name in [*names, ROWS_IN_DOUBT]}


class _BatchReader:
    """Goes through a run's input and parts, batch by batch. Blocks; memory holds one batch."""

    def __init__(self, runs: Runs, spec: JobSpec, *, model: ModelSpec, folder: Path) -> None:
        self._runs = runs
        self._spec = spec
        self._folder = folder
        self._inputs = InputReader(runs, spec, folder)
        self._wanted = Wanted.by(model)

    def batches(self, redo: frozenset[Verdict], totals: Totals) -> Iterator[OpenBatchInput]:
        """Batches with rows to send; what stays of the others is added to ``totals``."""
        paths = parts_by_batch(self._runs, self._spec.job_id)
        for batch in range(self._spec.batches):
            rescued = self._kept(paths.get(batch, []), redo, folder=RESCUED)
            in_part = self._kept(paths.get(batch, []), redo, folder=OUTPUTS)
            rows = self._rows(batch)
            # A row that was answered twice keeps what its part says.
            kept = list((rescued | in_part).values())
            totals.add_outcomes(kept)
            if len(in_part) < len(rows):  # also where all of it was rescued: it has no part yet
                yield OpenBatchInput(batch=batch, rows=rows, kept=kept)

    def _kept(
        self, paths: Sequence[str], redo: frozenset[Verdict], *, folder: str
    ) -> dict[int, Outcome]:
        """The outcomes that stand, by row, of the files in one folder of the run."""
        kept: dict[int, Outcome] = {}
        for path in paths:
            if path.startswith(f"{folder}/"):
                local = self._runs.fetch(self._spec.job_id, path, self._folder)
                kept |= {o.index: o for o in read_outcomes(local) if o.verdict not in redo}
                local.unlink(missing_ok=True)
        return kept

    def _rows(self, batch: int) -> list[Row]:
        """The rows as the first submit made them: same ids, same values."""
        options = SourceOptions(
            columns=self._spec.columns,
            id_column=self._spec.id_column,
            params_column=self._spec.params_column,
        )
        stored = list(self._inputs.rows_of(batch))
        made = read_rows(map(_record, stored), self._wanted, options=options)
        return [
            dataclasses.replace(source_row.row, row_id=row.row_id, index=row.index)
            for row, source_row in zip(stored, made, strict=True)
        ]


def _record(row: InputRow) -> Record:
    # A text file's lines have no column name; what was read from one has this column alone.
    is_text = row.values.keys() == {TEXT_COLUMN}
    return Record(
        source=row.source,
        line=row.line,
        values=row.values,
        input_format=Format.TEXT if is_text else Format.JSONL,
    )
