"""Reading a run's files batch by batch: its parts, and the input beside them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from flavor.types import Json
from worker.inputs import InputRow, place_of, read_input_batch
from worker.jobs import JobSpec
from worker.parts import read_part
from worker.runs import INPUTS, OUTPUTS, RESCUED, Runs

_AHEAD = 8
"""Parts fetched at once: a store behind a server answers in tens of milliseconds each."""


def part_number(path: str) -> int:
    """The batch that a part's path names, or that of a rescued file."""
    return int(Path(path).stem.split("-")[1])


def parts_by_batch(
    runs: Runs, job_id: str, folders: Sequence[str] = (RESCUED, OUTPUTS)
) -> dict[int, list[str]]:
    """The run's files with outcomes by batch: its part, after what was rescued. Blocks."""
    found: dict[int, list[str]] = {}
    for folder in folders:
        for path in runs.files(job_id, folder):
            found.setdefault(part_number(path), []).append(path)
    return dict(sorted(found.items()))


def read_parts(
    runs: Runs,
    job_id: str,
    paths: Mapping[int, Sequence[str]],
    *,
    folder: Path,
    columns: Callable[[int], Sequence[str] | None] = lambda _: None,
) -> Iterator[tuple[int, pa.Table]]:
    """Every batch's outcomes, in order, as a stream; a few batches are fetched ahead. Blocks.

    Of a row that several of a batch's files hold, the last file's outcome counts. ``columns`` says
    which columns of a batch are read, None for all; ``index`` must be among them where a batch may
    have several files.
    """
    read = partial(_read_batch, runs, job_id, folder=folder)
    batches = iter(paths.items())
    pending: deque[tuple[int, Future[pa.Table]]] = deque()
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="parts") as threads:
        for batch, files in batches:
            pending.append((batch, threads.submit(read, files, columns=columns(batch))))
            if len(pending) > _AHEAD:
                yield _next(pending)
        while pending:
            yield _next(pending)


def _next(pending: deque[tuple[int, Future[pa.Table]]]) -> tuple[int, pa.Table]:
    batch, future = pending.popleft()
    return batch, future.result()


def _read_batch(
    runs: Runs, job_id: str, files: Sequence[str], *, folder: Path, columns: Sequence[str] | None
) -> pa.Table:
    tables = []
    for path in files:
        local = runs.fetch(job_id, path, folder)
        tables.append(read_part(local, columns))
        local.unlink(missing_ok=True)
    if len(tables) == 1:
        return tables[0]
    together = pa.concat_tables(tables)
    # The first of equals from behind is the last one; the result is in the rows' order.
    backwards = together["index"].to_numpy()[::-1]
    _, places = np.unique(backwards, return_index=True)
    return together.take(len(backwards) - 1 - places)


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
