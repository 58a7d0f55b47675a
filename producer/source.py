"""Rows for a model out of records: each variable filled by name, each row with its id.

Which file said what is ``producer.formats``' business; what a template makes of a value is the
flavor's. Here a value keeps its JSON type, and braces in a text are just text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from flavor.errors import InputError
from flavor.spec import ModelSpec
from flavor.types import Json, Row
from producer.files import listed
from producer.formats import TEXT_COLUMN, Format, Record
from producer.ids import id_of
from worker.inputs import from_json

MESSAGES_COLUMN = "messages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the model wants of a row.

    ``aliases`` are column names accepted instead of a variable's own, in order of preference. With
    ``accepts_messages`` a column of that name (a list of ``{"role", "content"}`` or its JSON text)
    can stand for the only variable. ``optional`` columns are taken where they are there; a model
    that ``takes_whole_rows`` gets all columns but the ids.
    """

    variables: tuple[str, ...]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    accepts_messages: bool = False
    optional: tuple[str, ...] = ()
    takes_whole_rows: bool = False

    @classmethod
    def by(cls, model: ModelSpec) -> Wanted:
        """What this model wants."""
        return cls(
            variables=model.variables,
            aliases=model.aliases,
            accepts_messages=model.accepts_messages,
            optional=model.optional,
            takes_whole_rows=model.takes_whole_rows,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """How the user wants the input read. ``columns`` names a variable's column where it differs."""

    columns: Mapping[str, str] = field(default_factory=dict)
    id_column: str | None = None
    limit: int | None = None
    on_null: Literal["error", "skip"] = "error"
    params_column: str | None = "params"


@dataclass(slots=True)
class SourceRow:
    """A row, and the record it was made of."""

    row: Row
    record: Record


def read_rows(
    records: Iterable[Record],
    wanted: Wanted,
    *,
    options: SourceOptions | None = None,
    check_params: Callable[[Mapping[str, Json]], None] | None = None,
) -> SourceRows:
    """Make the model's rows of records, in order, as a stream. ``index`` counts the rows made.

    Raises:
        InputError: an option that fits no variable, at once; and while reading a record that makes
            no row, with its file and line, or what ``check_params`` raises of a row's own.
    """
    return SourceRows(records, _Columns(wanted, options or SourceOptions()), check_params)


class SourceRows(Iterator[SourceRow]):
    """The rows of an input as a stream, and how many records were left out on the way."""

    def __init__(
        self,
        records: Iterable[Record],
        columns: _Columns,
        check_params: Callable[[Mapping[str, Json]], None] | None,
    ) -> None:
        self.skipped = 0
        self.first_skip: InputError | None = None
        self._columns = columns
        self._check_params = check_params
        self._rows = self._make_rows(records)

    def __iter__(self) -> Iterator[SourceRow]:
        return self._rows

    def __next__(self) -> SourceRow:
        return next(self._rows)

    def _make_rows(self, records: Iterable[Record]) -> Iterator[SourceRow]:
        columns, id_column = self._columns, self._columns.options.id_column
        limit = columns.options.limit
        index = 0
        for record in records if limit != 0 else ():
            try:
                values = columns.values_of(record)
            except _NullError as error:
                self._skip(error)
                continue
            row_id = str(index) if id_column is None else id_of(record, id_column)
            params = self._params_of(record) if columns.params_column in record.values else None
            yield SourceRow(Row(row_id=row_id, index=index, values=values, params=params), record)
            index += 1
            if index == limit:  # here, not at the next record: stdin may never send one
                return

    def _skip(self, error: InputError) -> None:
        if self._columns.options.on_null == "error":
            raise error
        self.skipped += 1
        self.first_skip = self.first_skip or error

    def _params_of(self, record: Record) -> Mapping[str, Json] | None:
        params = self._columns.params_of(record)
        if params and self._check_params is not None:
            try:
                self._check_params(params)
            except InputError as error:
                raise InputError(f"{record.place}: {error}") from error
        return params


class _NullError(InputError):
    """A variable's value is null: an error, or a row left out, as the user wishes."""


class _Columns:
    """Which of a record's columns fill what, as far as that is known before the first record."""

    def __init__(self, wanted: Wanted, options: SourceOptions) -> None:
        self.options = options
        self.params_column = _params_column(wanted, options)
        self._wanted = wanted
        self._given = _given_columns(wanted, options)
        self._messages_column = self._given.get(MESSAGES_COLUMN, MESSAGES_COLUMN)
        self._has_messages = wanted.accepts_messages and not (
            self._given.keys() & set(wanted.variables) - {MESSAGES_COLUMN}
        )
        self._candidates = [
            (v, (self._given[v],) if v in self._given else (v, *wanted.aliases.get(v, ())))
            for v in wanted.variables
        ]

    def values_of(self, record: Record) -> dict[str, Json]:
        """Fill every variable by the name of a column, and never by its place."""
        there = record.values
        if self._wanted.takes_whole_rows:
            return {name: there[name] for name in there if name != self.options.id_column}
        if self._has_messages and self._messages_column in there:
            return {MESSAGES_COLUMN: _messages(there[self._messages_column], record)}
        values = self._variables_of(record)
        for name in self._wanted.optional:
            column = self._given.get(name, name)
            if column in there:
                values[name] = there[column]
        return values

    def _variables_of(self, record: Record) -> dict[str, Json]:
        there = record.values
        values = {}
        for variable, candidates in self._candidates:
            for column in candidates:
                if column in there:
                    break
            else:
                column = self._only_column(record, variable)
            value = there[column]
            if value is None or (type(value) is float and math.isnan(value)):
                raise _null_error(record, column)
            values[variable] = value
        return values

    def params_of(self, record: Record) -> Mapping[str, Json] | None:
        """The row's own request parameters; an empty field is none."""
        params = record.values[self.params_column or ""]
        if isinstance(params, str):
            params = _parsed(params) if params.strip() else None
        if params is None or isinstance(params, dict):
            return params or None
        raise InputError(
            f"{record.place}: the column {self.params_column!r} must hold a JSON object of "
            'request parameters, like {"temperature": 0}; rename the column if it holds data'
        )

    def _only_column(self, record: Record, variable: str) -> str:
        """A file without column names fills a model's only variable, whatever its name is."""
        if record.input_format is Format.TEXT and variable not in self._given:
            if len(self._candidates) == 1:
                return TEXT_COLUMN
            raise InputError(
                f"{record.place}: a text a line cannot fill the model's variables "
                f"{listed(self._wanted.variables)}; use .csv or .jsonl with a column for each"
            )
        raise self._missing_error(record, variable)

    def _missing_error(self, record: Record, variable: str) -> InputError:
        column = self._given.get(variable, variable)
        text = (
            f"{record.place}: no column {column!r} for the model's variable {variable!r}; "
            f"columns there: {listed(record.values)}; remedy: --column {variable}=<one of them>"
        )
        if record.input_format is not Format.JSONL:
            return InputError(text + _separator_hint(record))
        # A JSON object may lack a key where others have it: that is how JSONL says null.
        return _NullError(f"{text}, or --on-null skip if only some rows lack it")


def _separator_hint(record: Record) -> str:
    """A header of one name may be one of several, separated by something else."""
    if record.input_format is not Format.CSV or len(record.values) > 1:
        return ""
    (name,) = record.values
    if "\t" in name:
        return "; columns separated by tabs are read with --input-format tsv"
    return "; columns must be separated by commas, not by ';'" if ";" in name else ""


def _given_columns(wanted: Wanted, options: SourceOptions) -> dict[str, str]:
    """Read ``--column`` by variable; an alias stands for its variable."""
    variable_of = {alias: v for v in wanted.variables for alias in wanted.aliases.get(v, ())}
    variable_of.update({v: v for v in (*wanted.variables, *wanted.optional)})
    if wanted.accepts_messages:
        variable_of[MESSAGES_COLUMN] = MESSAGES_COLUMN
    given: dict[str, str] = {}
    for name, column in options.columns.items():
        variable = variable_of.get(name)
        if variable is None:
            raise InputError(
                f"--column {name}={column}: the model has no variable {name!r}; "
                f"it has: {listed(wanted.variables) or 'none'}"
            )
        if variable in given:
            raise InputError(f"--column {name}={column}: the variable {variable!r} is given twice")
        given[variable] = column
    return given


def _params_column(wanted: Wanted, options: SourceOptions) -> str | None:
    """None where the column of that name is data: a variable's, or the ids."""
    taken = {*wanted.variables, *wanted.optional, *options.columns.values(), options.id_column}
    return None if options.params_column in taken else options.params_column


def _parsed(text: str) -> Json:
    try:
        return from_json(text)
    except ValueError:
        return text  # the caller refuses a text in its own words


def _messages(messages: Json, record: Record) -> Json:
    if messages is None:
        raise _null_error(record, MESSAGES_COLUMN)
    messages = _parsed(messages) if isinstance(messages, str) else messages
    if (
        isinstance(messages, list)
        and messages
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages)
    ):
        return messages
    raise InputError(
        f"{record.place}: the column of messages must hold a list of objects with a 'role' and a "
        "'content', or the JSON text of one"
    )


def _null_error(record: Record, column: str) -> _NullError:
    return _NullError(
        f"{record.place}: the column {column!r} is null; --on-null skip leaves such rows out"
    )
