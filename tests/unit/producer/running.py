"""A run in a folder, with inputs and parts, as results are read from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flavor.types import Json, Task
from producer.outcomes import Outcomes, View, open_outcomes
from tests.unit.worker.fakes import FolderRuns
from tests.unit.worker.making import JOB, make_spec
from worker.columns import Columns
from worker.inputs import InputWriter, to_json
from worker.jobs import JobSpec, Outcome
from worker.parts import part_name, write_part

ROWS_PER_BATCH = 2


class FinishedRun:
    """A job over these input rows, two a batch. Parts are added by ``publish``."""

    def __init__(self, folder: Path, inputs: Sequence[Mapping[str, Json]], **changes: Any) -> None:
        self.folder = folder
        self.runs = FolderRuns(folder / "run")
        columns = Columns()
        with InputWriter(folder) as writer:
            for first in range(0, len(inputs), ROWS_PER_BATCH):
                rows = inputs[first : first + ROWS_PER_BATCH]
                for row in rows:
                    columns.add(row)
                indexes = range(first, first + len(rows))
                writer.write(
                    first_index=first,
                    row_ids=[f"r{index}" for index in indexes],
                    sources=["rows.jsonl"] * len(rows),
                    lines=list(indexes),
                    rows=[to_json(row) for row in rows],
                )
        for file in writer.files:
            self.runs.log_file(JOB, file, "input")
        values: dict[str, Any] = {
            "rows": len(inputs),
            "batches": -(-len(inputs) // ROWS_PER_BATCH),
            "batch_size": ROWS_PER_BATCH,
            "input_columns": columns.kinds,
        }
        self.spec: JobSpec = make_spec(**{**values, **changes})

    def publish(
        self, batch: int, *outcomes: Outcome, folder: str = "outputs", name: str | None = None
    ) -> None:
        path = self.folder / (name or part_name(batch))
        write_part(path, outcomes, Task(self.spec.task))
        self.runs.log_file(JOB, path, folder)

    def open(self, **view: Any) -> Any:
        return open_outcomes(self.runs.as_runs, self.spec, View(**view))

    def rows(self, **view: Any) -> list[dict[str, Json]]:
        with self.open(**view) as outcomes:
            found: Outcomes = outcomes
            return list(found.rows())
