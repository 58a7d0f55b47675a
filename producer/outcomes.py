"""A job's outcomes with the input's columns beside them: rows in the input's order, as a stream.

Read from the run alone: the parts that are published so far, and what was rescued of batches that
have none. Memory holds a few batches.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from flavor.types import Json
from producer.answers import COLUMNS, Answers, read_answer, read_answers
from producer.layout import Column, Source, Sources, lay_out
from worker.jobs import JobSpec, Verdict
from worker.run_files import InputReader, parts_by_batch, read_parts
from worker.runs import Runs

_DEAD = pa.array([verdict.value for verdict in Verdict if verdict.is_dead])


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the user wants to see. ``columns`` in this order; none named are all."""

    columns: Sequence[str] = ()
    only_failed: bool = False
    has_json_columns: bool = False


@dataclass(slots=True)
class Outcomes:
    """Results as a table: its columns, and its rows as often as they are asked for.

    ``answers`` is None unless JSON answers are spread into columns.
    """

    spec: JobSpec
    columns: list[Column]
    answers: Answers | None
    _runs: Runs
    _folder: Path
    _paths: Mapping[int, Sequence[str]]
    _only_failed: bool

    @property
    def schema(self) -> pa.Schema:
        """The columns as Arrow has them."""
        return pa.schema([(column.name, column.type) for column in self.columns])

    def rows(self) -> Iterator[dict[str, Json]]:
        """One row after another. Blocks.

        Raises:
            InputError: the input is gone from the run.
            TrackingError: MLflow is away.
        """
        inputs = InputReader(self._runs, self.spec, self._folder)
        sources = {column.source for column in self.columns}
        has_input = bool(sources & {Source.INPUT, Source.INPUT_ROW})
        for batch, found in self._batches(self._needed()):
            outcomes = (
                found.filter(pc.is_in(found["verdict"], _DEAD)) if self._only_failed else found
            )
            if not outcomes.num_rows:
                continue
            given = (inputs.of_batch(batch) or {}) if has_input else {}
            for outcome in outcomes.to_pylist():
                yield self._row(outcome, given.get(outcome["index"], {}))

    def tables(self, rows_at_once: int = 1000) -> Iterator[pa.Table]:
        """The same as Arrow tables of about so many rows."""
        group: list[dict[str, Json]] = []
        for row in self.rows():
            group.append(row)
            if len(group) == rows_at_once:
                yield self._table(group)
                group = []
        if group:
            yield self._table(group)

    def _batches(self, columns: Sequence[str] | None) -> Iterator[tuple[int, pa.Table]]:
        return read_parts(
            self._runs,
            self.spec.job_id,
            self._paths,
            folder=self._folder,
            columns=lambda _: columns,
        )

    def _needed(self) -> list[str]:
        """The columns of a part that must be read."""
        wanted = [c.key for c in self.columns if c.source is Source.OUTCOME]
        return list(
            dict.fromkeys(["index", "verdict", *wanted, *(COLUMNS if self.answers else ())])
        )

    def _row(self, outcome: Mapping[str, Json], given: Mapping[str, Json]) -> dict[str, Json]:
        answer: Mapping[str, Json] = {}
        error = None
        if self.answers is not None and outcome["verdict"] == Verdict.SUCCEEDED:
            answer, error = read_answer(outcome["output"])
        row = Sources(outcome=outcome, given=given, answer=answer, answer_error=error)
        return {column.name: column.value(row) for column in self.columns}

    def _table(self, rows: Sequence[Mapping[str, Json]]) -> pa.Table:
        arrays = [c.array([row[c.name] for row in rows]) for c in self.columns]
        return pa.Table.from_arrays(arrays, schema=self.schema)


@contextmanager
def open_outcomes(runs: Runs, spec: JobSpec, view: View | None = None) -> Iterator[Outcomes]:
    """A job's results, for the length of the block. Blocks.

    Raises:
        InputError: a column that was asked for is not there.
        TrackingError: MLflow is away.
    """
    view = view or View()
    with tempfile.TemporaryDirectory(prefix="results-") as name:
        folder = Path(name)
        paths = parts_by_batch(runs, spec.job_id)
        answers = None
        if view.has_json_columns:
            parts = read_parts(runs, spec.job_id, paths, folder=folder, columns=lambda _: COLUMNS)
            answers = read_answers(spec, parts)
        yield Outcomes(
            spec=spec,
            columns=lay_out(
                spec, answers=answers.columns.kinds if answers else None, wanted=view.columns
            ),
            answers=answers,
            _runs=runs,
            _folder=folder,
            _paths=paths,
            _only_failed=view.only_failed,
        )
