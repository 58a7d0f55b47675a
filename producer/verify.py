"""Whether a job kept its promises: its input and parts are read again, and nothing is believed.

Redis is not asked, so what is verified is what will still be there in a year.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa

from flavor.errors import InputError
from flavor.types import Json
from worker.jobs import JobSpec
from worker.parts import read_part
from worker.run_files import InputReader, part_number
from worker.runs import OUTPUTS, ROWS_IN_DOUBT, Runs
from worker.totals import Totals

SHOWN = 20
"""So many row ids of each kind are named; the counts are of all."""

_CHECKED = ("rows.", "tokens.", "cost.")


@dataclass(slots=True, kw_only=True)
class Finding:
    """Rows of one kind that should not be there: how many, and the first of them."""

    count: int = 0
    row_ids: list[str] = field(default_factory=list)

    def add(self, row_id: str, times: int = 1) -> None:
        """Count a row."""
        self.count += times
        if len(self.row_ids) < SHOWN:
            self.row_ids.append(row_id)


@dataclass(slots=True, kw_only=True)
class Verification:
    """What was found. ``rows_in_doubt`` is how many payments, at most, brought no outcome: of rows
    that a worker had when it died or was cut off, or whose request ended without a word on whether
    it was billed. Those rows were sent again. None where a run of an older version does not say.

    ``is_input_compared`` is False where the input was not logged: then rows are known by their
    place alone.
    """

    job_id: str
    rows: int
    outcomes: int = 0
    without_outcome: Finding = field(default_factory=Finding)
    with_several: Finding = field(default_factory=Finding)
    unknown: Finding = field(default_factory=Finding)
    is_input_compared: bool = True
    wrong_totals: dict[str, list[float | None]] = field(default_factory=dict)
    requests_sent: int = 0
    rows_in_doubt: int | None = None

    @property
    def holds(self) -> bool:
        """Whether every row has exactly one outcome and all totals are their sums."""
        findings = (self.without_outcome, self.with_several, self.unknown)
        return self.outcomes == self.rows and not any(
            (self.wrong_totals, *(finding.count for finding in findings))
        )

    def to_json(self) -> dict[str, Json]:
        """The object that ``verify --json`` prints and the run keeps."""
        return {"holds": self.holds, **asdict(self)}


def verify_job(runs: Runs, job_id: str) -> Verification:
    """Check an ended job from its run alone. Blocks; memory holds one batch.

    Raises:
        InputError: the job has not ended, or is none of ours.
    """
    spec = runs.spec(job_id)
    run = runs.get(job_id)
    if run.info.status == "RUNNING":
        raise InputError(f"job {job_id} has not ended: verify it when it has (producer watch)")
    found = Verification(job_id=job_id, rows=spec.rows, is_input_compared=spec.is_input_logged)
    totals = Totals()
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        reader = _Reader(runs, spec, Path(folder))
        for batch in range(spec.batches):
            part = reader.part(batch)
            if part is not None:
                totals.add(part)
            _compare(found, reader.expected(batch), part)
    found.outcomes = totals.rows_total
    _compare_totals(found, totals, run.data.metrics)
    return found


class _Reader:
    """A run's batches: what was asked, and what came back."""

    def __init__(self, runs: Runs, spec: JobSpec, folder: Path) -> None:
        self._runs = runs
        self._spec = spec
        self._folder = folder
        self._inputs = InputReader(runs, spec, folder)
        self._paths = {part_number(path): path for path in runs.files(spec.job_id, OUTPUTS)}

    def part(self, batch: int) -> pa.Table | None:
        """A batch's outcomes, or nothing where it has no part."""
        if batch not in self._paths:
            return None
        local = self._runs.fetch(self._spec.job_id, self._paths[batch], self._folder)
        table = read_part(local)
        local.unlink(missing_ok=True)
        return table

    def expected(self, batch: int) -> Iterator[tuple[int, str | None]]:
        """Index and id of each of the batch's rows; no ids where the input was not logged."""
        if self._spec.is_input_logged:
            for row in self._inputs.rows_of(batch):
                yield row.index, row.row_id
            return
        first = batch * self._spec.batch_size
        for index in range(first, min(first + self._spec.batch_size, self._spec.rows)):
            yield index, None


def _compare(
    found: Verification, expected: Iterator[tuple[int, str | None]], part: pa.Table | None
) -> None:
    outcomes: Counter[tuple[int, str]] = Counter()
    if part is not None:
        pairs = zip(part["index"].to_pylist(), part["row_id"].to_pylist(), strict=True)
        outcomes.update(pairs)
    ids = dict(outcomes.keys())
    for index, row_id in expected:
        key = (index, ids.get(index, "") if row_id is None else row_id)
        times = outcomes.pop(key, 0)
        if not times:
            found.without_outcome.add(row_id or f"row {index}")
        elif times > 1:
            found.with_several.add(key[1], times - 1)
    for (_, row_id), times in outcomes.items():
        found.unknown.add(row_id, times)


def _compare_totals(found: Verification, totals: Totals, metrics: dict[str, float]) -> None:
    """The run's metrics against the sums. Money is compared to a millionth of a cent."""
    for name, total in totals.metrics().items():
        logged = metrics.get(name)
        if name.startswith(_CHECKED) and (logged is None or abs(logged - total) > 1e-8):
            found.wrong_totals[name] = [logged, total]
    found.requests_sent = int(metrics.get("requests.sent", 0))
    if (in_doubt := metrics.get(ROWS_IN_DOUBT)) is not None:
        found.rows_in_doubt = int(in_doubt)
