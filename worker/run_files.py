"""Reading a run's files batch by batch: its parts, and the input beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flavor.types import Json
from worker.inputs import InputRow, place_of, read_input_batch
from worker.jobs import JobSpec
from worker.runs import INPUTS, OUTPUTS, RESCUED, Runs


def part_number(path: str) -> int:
    """The batch that a part's path names, or that of a rescued file."""
    return int(Path(path).stem.split("-")[1])


def parts_by_batch(runs: Runs, job_id: str) -> dict[int, list[str]]:
    """The run's files with outcomes by batch: its part, after what was rescued. Blocks."""
    found: dict[int, list[str]] = {}
    for folder in (RESCUED, OUTPUTS):
        for path in runs.files(job_id, folder):
            found.setdefault(part_number(path), []).append(path)
    return found


class InputReader:
    """The input rows of one batch after another; ``folder`` holds one file of them at a time."""

    def __init__(self, runs: Runs, spec: JobSpec, folder: Path) -> None:
        self._runs = runs
        self._spec = spec
        self._folder = folder
        self._file: Path | None = None

    def of_batch(self, batch: int) -> dict[int, Json] | None:
        """The input's columns by row index; None where the input was not logged. Blocks."""
        if not self._spec.is_input_logged:
            return None
        return {row.index: row.values for row in self.rows_of(batch)}

    def rows_of(self, batch: int) -> Iterator[InputRow]:
        """A batch's input rows, in order. Blocks. Raises ``InputError`` where they are gone."""
        place = place_of(batch)
        if self._file is None or self._file.name != place.file_name:
            if self._file is not None:
                self._file.unlink(missing_ok=True)
            self._file = self._runs.fetch(
                self._spec.job_id, f"{INPUTS}/{place.file_name}", self._folder
            )
        return read_input_batch(self._file, place.row_group)
