"""Which columns results have, what they are called and where each comes from.

First the row's id and place, then the input's columns, then what came back. A name that is taken is
the outcome's: the input's column of that name becomes ``input.NAME``, an answer's ``output.NAME``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from flavor.errors import InputError
from flavor.types import Json, StrEnum
from worker.columns import Kind
from worker.inputs import to_json
from worker.jobs import JobSpec
from worker.parts import part_schema

INPUT = "input"
ANSWER_ERROR = "json_error"
"""Beside the columns of JSON answers: why an answer is none; null where it is one."""

_FIRST = ("row_id", "index")
_OUTPUT = "output"
_TYPES = {
    Kind.STRING: pa.string(),
    Kind.LONG: pa.int64(),
    Kind.DOUBLE: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.ANY: pa.string(),  # as JSON text
}


class Source(StrEnum):
    """Where a column's values come from."""

    OUTCOME = "outcome"
    INPUT = "input"
    INPUT_ROW = "input_row"  # all of it, as one object
    ANSWER = "answer"  # a key of an output that is a JSON object
    ANSWER_ERROR = "answer_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """All that is known of one row."""

    outcome: Mapping[str, Json]
    given: Mapping[str, Json]
    answer: Mapping[str, Json]
    answer_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of results. ``kind`` is ``ANY`` where a table holds its values as JSON text."""

    name: str
    source: Source
    key: str
    type: pa.DataType
    kind: Kind | None = None

    def value(self, row: Sources) -> Json:
        """This column's value of one row; null where the row has none."""
        match self.source:
            case Source.OUTCOME:
                return row.outcome[self.key]
            case Source.INPUT:
                return row.given.get(self.key)
            case Source.INPUT_ROW:
                return row.given or None
            case Source.ANSWER:
                return row.answer.get(self.key)
            case Source.ANSWER_ERROR:
                return row.answer_error

    def array(self, values: Sequence[Json]) -> pa.Array:
        """Values as an Arrow array."""
        if self.kind is Kind.ANY:
            values = [None if value is None else to_json(value).decode() for value in values]
        elif self.kind is Kind.DOUBLE:  # Arrow refuses integers above 2**53
            values = [None if value is None else float(value) for value in values]
        try:
            return pa.array(values, self.type)
        except UnicodeEncodeError:  # a lone surrogate, which has no UTF-8
            return pa.array([_printable(value) for value in values], self.type)


def lay_out(
    spec: JobSpec, *, answers: Mapping[str, Kind] | None = None, wanted: Sequence[str] = ()
) -> list[Column]:
    """The columns of a job's results, or those of them that are ``wanted``, in that order.

    ``answers`` are the columns of JSON answers, where they are to be spread.

    Raises:
        InputError: a wanted column is not there.
    """
    schema = part_schema(spec.task)
    taken = set(schema.names)
    outcome = {name: _outcome_column(name, schema) for name in schema.names}
    spread: list[Column] = []
    if answers is not None:
        taken.add(ANSWER_ERROR)
    given = _input_columns(spec, taken)
    if answers is not None:
        error = Column(
            name=ANSWER_ERROR, source=Source.ANSWER_ERROR, key=ANSWER_ERROR, type=pa.string()
        )
        keys = [
            _column(_free(name, f"{_OUTPUT}.", taken), Source.ANSWER, key=name, kind=kind)
            for name, kind in answers.items()
        ]
        spread = [*keys, error]
    first = [outcome.pop(name) for name in _FIRST]
    columns = [*first, *given, outcome.pop(_OUTPUT), *spread, *outcome.values()]
    return _chosen(columns, wanted) if wanted else columns


def _input_columns(spec: JobSpec, taken: set[str]) -> list[Column]:
    if not spec.is_input_logged:
        return []
    if not spec.input_columns:
        return [
            _column(_free(INPUT, f"{INPUT}.", taken), Source.INPUT_ROW, key=INPUT, kind=Kind.ANY)
        ]
    return [
        _column(_free(name, f"{INPUT}.", taken), Source.INPUT, key=name, kind=kind)
        for name, kind in spec.input_columns.items()
    ]


def _outcome_column(name: str, schema: pa.Schema) -> Column:
    return Column(name=name, source=Source.OUTCOME, key=name, type=schema.field(name).type)


def _column(name: str, source: Source, *, key: str, kind: Kind) -> Column:
    return Column(name=name, source=source, key=key, type=_TYPES[kind], kind=kind)


def _free(name: str, prefix: str, taken: set[str]) -> str:
    while name in taken:
        name = prefix + name
    taken.add(name)
    return name


def _chosen(columns: Sequence[Column], wanted: Sequence[str]) -> list[Column]:
    by_name = {column.name: column for column in columns}
    for name in wanted:
        if name not in by_name:
            raise InputError(f"no column {name!r}; there are: {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(wanted)]


def _printable(value: Json) -> Json:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
