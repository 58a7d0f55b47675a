"""What an earlier job has paid for need not be paid again: its outcomes become a new job's.

The earlier job is a pilot (``estimate --pilot``), or any other over the same input, such as one
with ``--limit``. Rows are known by their ids, and compared where both runs have the input. The
outcomes go into the new run as *rescued* ones, so that ``resume`` finds them without Redis, and
into its batches' checkpoints, so that workers skip their rows.
"""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flavor.errors import InputError
from flavor.model import ModelSpec, read_spec
from flavor.types import Json
from producer.intake import Asked
from producer.reading import read_spec_of, read_status
from producer.services import Services
from producer.spool import Spooled
from worker.inputs import InputRow, find_rows
from worker.jobs import BATCHES_PER_INPUT_FILE, JobSpec, Outcome, Verdict
from worker.parts import part_name, read_outcomes, write_part
from worker.run_files import InputReader, parts_by_batch
from worker.runs import RESCUED, Runs
from worker.totals import Totals

_TAKEN = frozenset({Verdict.SUCCEEDED, Verdict.REJECTED})
"""What another attempt would not change; exhausted and cancelled rows are sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """An ended job's outcomes by row id, and its input's rows where the run has them."""

    spec: JobSpec
    outcomes: Mapping[str, Outcome]
    inputs: Mapping[str, Mapping[str, Json]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """A pilot's outcomes in their places in a new job, by batch."""

    pilot_id: str
    by_batch: Mapping[int, Sequence[Outcome]]
    totals: Totals

    @property
    def tags(self) -> dict[str, str]:
        """What the new run says of them: its totals hold them, and so does the pilot's run."""
        costs = [o.cost_usd or 0.0 for outcomes in self.by_batch.values() for o in outcomes]
        return {
            "batch.pilot_of": self.pilot_id,
            "batch.pilot_rows": str(self.totals.rows_total),
            "batch.pilot_tokens": str(self.totals.tokens["total"]),
            "batch.pilot_cost_usd": f"{sum(costs):.6f}",
        }


async def find_pilot(services: Services, job_id: str) -> Pilot:
    """Read an ended job's outcomes.

    Raises:
        InputError: nobody knows the job, or it has not ended.
    """
    spec = await read_spec_of(services, job_id)
    status = await read_status(services, job_id)
    if not status.state.is_final:
        raise InputError(
            f"pilot {job_id} is {status.state.value}: its rows may still be sent; "
            f"wait for it, or end it with producer resume or producer cancel"
        )
    return await asyncio.to_thread(_read, services.runs, spec)


def same_model(pilot: Pilot, asked: Asked) -> Asked:
    """Make sure that the new job would send what the pilot has sent; a ``--prompt`` gets the model
    that the pilot has logged. Blocks.

    Raises:
        InputError: names the first difference.
    """
    spec, options, openai_model = pilot.spec, asked.options, asked.openai_model
    if not asked.model.resolved_uri:
        logged = read_spec(spec.model_uri, openai_model=spec.openai_model)
        if _content(logged) != _content(asked.model):
            raise _different(spec, "model", of_pilot=spec.model_uri, of_job="made of this prompt")
        asked = dataclasses.replace(asked, model=logged)
    for name, of_pilot, of_job in (
        ("model", spec.model_uri, asked.model.resolved_uri),
        ("OpenAI model", spec.openai_model, openai_model),
        ("parameters", dict(spec.params), dict(options.params)),
        ("columns", dict(spec.columns), dict(options.columns)),
        ("id column", spec.id_column, options.id_column),
    ):
        if of_pilot != of_job:
            raise _different(spec, name, of_pilot=of_pilot, of_job=of_job)
    return asked


def carry(pilot: Pilot, spooled: Spooled, *, input_sha256: str) -> Carried:
    """Find the places of the pilot's rows in a new job. Blocks; reads the spool's row ids.

    Raises:
        InputError: the input is another one, or was read in another way.
    """
    spec = pilot.spec
    if not input_sha256 or spec.input_sha256 != input_sha256:
        raise _different(
            spec, "input's SHA-256", of_pilot=spec.input_sha256[:12], of_job=input_sha256[:12]
        )
    by_batch: dict[int, list[Outcome]] = {}
    totals = Totals()
    for batch, row in _places(spooled, pilot):
        if pilot.inputs is not None and pilot.inputs[row.row_id] != row.values:
            raise InputError(
                f"row {row.row_id} is another than in pilot {spec.job_id}: "
                "was its input read as another format?"
            )
        outcome = dataclasses.replace(pilot.outcomes[row.row_id], index=row.index)
        by_batch.setdefault(batch, []).append(outcome)
        totals.add_outcomes([outcome])
    if not by_batch:
        raise InputError(f"this job has none of the rows that pilot {spec.job_id} has paid for")
    return Carried(pilot_id=spec.job_id, by_batch=by_batch, totals=totals)


async def keep(services: Services, spec: JobSpec, carried: Carried) -> None:
    """Give a draft the outcomes: first its run, then its batches in Redis."""
    await asyncio.to_thread(_log, services.runs, spec, carried)
    for batch, outcomes in carried.by_batch.items():
        await services.store.add_outcomes(spec.job_id, batch, outcomes)


def _read(runs: Runs, spec: JobSpec) -> Pilot:
    outcomes: dict[str, Outcome] = {}
    inputs: dict[str, Mapping[str, Json]] = {}
    with tempfile.TemporaryDirectory(prefix="pilot-") as name:
        reader = InputReader(runs, spec, Path(name))
        for batch, paths in parts_by_batch(runs, spec.job_id).items():
            for path in paths:
                local = runs.fetch(spec.job_id, path, Path(name))
                found = [o for o in read_outcomes(local) if o.verdict in _TAKEN]
                outcomes |= {outcome.row_id: outcome for outcome in found}
            if spec.is_input_logged:
                inputs |= {row.row_id: row.values for row in reader.rows_of(batch)}
    return Pilot(spec=spec, outcomes=outcomes, inputs=inputs if spec.is_input_logged else None)


def _places(spooled: Spooled, pilot: Pilot) -> Iterator[tuple[int, InputRow]]:
    for number, path in enumerate(spooled.input_files):
        for row_group, row in find_rows(path, pilot.outcomes.keys()):
            yield number * BATCHES_PER_INPUT_FILE + row_group, row


def _log(runs: Runs, spec: JobSpec, carried: Carried) -> None:
    with tempfile.TemporaryDirectory(prefix="pilot-") as folder:
        for batch, outcomes in carried.by_batch.items():
            path = Path(folder) / part_name(batch).replace(".", "-pilot.")
            write_part(path, outcomes, spec.task)
            runs.log_file(spec.job_id, path, RESCUED)


def _content(model: ModelSpec) -> tuple[Json, ...]:
    """What a model makes of a row, wherever it is logged."""
    return (model.task, model.template, model.syntax, dict(model.params))


def _different(spec: JobSpec, name: str, *, of_pilot: object, of_job: object) -> InputError:
    return InputError(
        f"pilot {spec.job_id} differs in its {name}: {of_pilot or 'none'}, here {of_job or 'none'}"
    )
