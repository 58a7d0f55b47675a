"""How records become a model's rows: by name, each with its id, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest

from flavor.errors import InputError
from producer.formats import Format, Record, read_records
from producer.source import SourceOptions, SourceRows, Wanted, read_rows

TEXT = Wanted(variables=("text",))
CHAT = Wanted(variables=("content",), aliases={"content": ("text",)}, accepts_messages=True)
PAIR = Wanted(variables=("question", "answer"))
HISTORY = [{"role": "user", "content": "hi"}]


def rows(
    *records: Mapping[str, Any],
    wanted: Wanted = TEXT,
    input_format: Format = Format.CSV,
    check_params: Any = None,
    **options: Any,
) -> SourceRows:
    return read_rows(
        [Record("a.x", n, dict(v), input_format) for n, v in enumerate(records, start=2)],
        wanted,
        options=SourceOptions(**options),
        check_params=check_params,
    )


def values(source_rows: SourceRows) -> list[Mapping[str, Any]]:
    return [source_row.row.values for source_row in source_rows]


def error_of(source_rows: SourceRows) -> str:
    with pytest.raises(InputError) as raised:
        list(source_rows)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_variables_are_filled_by_name_and_never_by_place() -> None:
    found = rows({"first": 1, "answer": "a", "question": "q"}, wanted=PAIR)

    assert values(found) == [{"question": "q", "answer": "a"}]


def test_a_missing_column_is_an_error_with_place_columns_and_remedy() -> None:
    assert error_of(rows({"id": "1", "review": "x"}, on_null="skip")) == (
        "a.x:2: no column 'text' for the model's variable 'text'; columns there: id, review; "
        "remedy: --column text=<one of them>"
    )


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("id;text", "; columns must be separated by commas, not by ';'"),
        ("id\ttext", "; columns separated by tabs are read with --input-format tsv"),
        ("review", "=<one of them>"),
    ],
)
def test_a_header_of_one_name_may_have_another_separator(header: str, hint: str) -> None:
    assert error_of(rows({header: "1;x"})).endswith(hint)


def test_a_column_given_for_a_variable_fills_it() -> None:
    record = {"text": "no", "review": "yes"}

    assert values(rows(record, columns={"text": "review"})) == [{"text": "yes"}]
    assert "no column 'gone' for the model's variable 'text'" in error_of(
        rows(record, columns={"text": "gone"})
    )


def test_an_alias_stands_for_the_implicit_variable_which_itself_goes_first() -> None:
    records = [{"text": "a"}, {"text": "no", "content": "b"}]

    assert values(rows(*records, wanted=CHAT)) == [{"content": "a"}, {"content": "b"}]
    assert values(rows({"body": "c"}, wanted=CHAT, columns={"text": "body"})) == [{"content": "c"}]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"txt": "a"}, "--column txt=a: the model has no variable 'txt'; it has: content"),
        (
            {"text": "a", "content": "b"},
            "--column content=b: the variable 'content' is given twice",
        ),
    ],
)
def test_a_column_option_that_fits_no_variable_is_refused_at_once(
    columns: dict[str, str], reason: str
) -> None:
    with pytest.raises(InputError) as raised:
        rows(wanted=CHAT, columns=columns)

    assert str(raised.value) == reason


@pytest.mark.parametrize("messages", [HISTORY, '[{"role": "user", "content": "hi"}]'])
def test_a_messages_column_stands_for_the_implicit_variable(messages: object) -> None:
    record = {"messages": messages, "text": "no"}

    assert values(rows(record, wanted=CHAT)) == [{"messages": HISTORY}]
    assert values(rows({"talk": messages}, wanted=CHAT, columns={"messages": "talk"})) == [
        {"messages": HISTORY}
    ]
    assert values(rows(record, wanted=CHAT, columns={"text": "text"})) == [{"content": "no"}]
    assert values(rows(record, wanted=TEXT)) == [{"text": "no"}]


@pytest.mark.parametrize(
    "messages", ["hi", [], [{"content": "x"}], ["hi"], [{"role": 1}], {"a": 1}]
)
def test_a_messages_column_of_another_shape_is_an_error(messages: object) -> None:
    assert "a.x:2: the column of messages must hold a list of objects" in error_of(
        rows({"messages": messages}, wanted=CHAT)
    )


def test_a_text_a_line_fills_a_models_only_variable_whatever_its_name() -> None:
    record = {"text": "x"}

    assert values(rows(record, wanted=Wanted(variables=("review",)), input_format=Format.TEXT)) == [
        {"review": "x"}
    ]
    assert "cannot fill the model's variables question, answer; use .csv or .jsonl" in error_of(
        rows(record, wanted=PAIR, input_format=Format.TEXT)
    )
    assert "no column 'body'" in error_of(
        rows(record, columns={"text": "body"}, input_format=Format.TEXT)
    )


def test_values_keep_their_types_and_braces_are_just_text() -> None:
    odd: list[Any] = ["{text} {0} {{", "", 7, True, [1], {"a": None}, "\u202eabc\x00\ud800"]

    assert values(rows(*({"text": v} for v in odd))) == [{"text": v} for v in odd]


@pytest.mark.parametrize("null", [None, float("nan")])
def test_a_null_is_an_error_or_a_row_left_out_and_counted(null: object) -> None:
    records: list[dict[str, Any]] = [{"text": "a"}, {"text": null}, {"text": "b"}]

    skipping = rows(*records, on_null="skip")

    assert error_of(rows(*records)) == (
        "a.x:3: the column 'text' is null; --on-null skip leaves such rows out"
    )
    assert [(r.row.row_id, r.row.index, r.record.line) for r in skipping] == [
        ("0", 0, 2),
        ("1", 1, 4),
    ]
    assert skipping.skipped == 1


def test_a_null_in_messages_is_a_null() -> None:
    assert "is null" in error_of(rows({"messages": None}, wanted=CHAT))


def test_a_key_that_a_json_object_lacks_is_a_null() -> None:
    records: list[dict[str, Any]] = [{"other": 1}, {"text": "a"}]

    skipping = rows(*records, input_format=Format.JSONL, on_null="skip")

    assert values(skipping) == [{"text": "a"}]
    assert skipping.skipped == 1
    assert error_of(rows(*records, input_format=Format.JSONL)).endswith(
        "columns there: other; remedy: --column text=<one of them>, or --on-null skip if only some "
        "rows lack it"
    )


@pytest.mark.parametrize(
    ("row_id", "text"),
    [("007", "007"), (7, "7"), (10**30, str(10**30)), (1.5, "1.5"), (" é\u200f x", " é\u200f x")],
)
def test_an_id_is_the_columns_value_as_text(row_id: object, text: str) -> None:
    (found,) = rows({"id": row_id, "text": "x"}, id_column="id")

    assert found.row.row_id == text


@pytest.mark.parametrize(
    ("row_id", "reason"),
    [
        (None, "is null"),
        ("", "is empty"),
        (True, "is no text or number but bool"),
        (["x"], "is no text or number but list"),
        (float("inf"), "is no text or number but float"),
        ("x" * 1_000_000, "has 1,000,000 characters; 1,024 are allowed"),
        ("é" * 1025, "has 1,025 characters"),
        ("a\0b", "has a character that no id may hold: U+0000 at 2"),
        ("a\n", "U+000A at 2"),
        ("\ud800", "U+D800 at 1"),
        ("é\x85", "U+0085 at 2"),
    ],
)
def test_an_id_that_cannot_serve_is_an_error_with_its_line(row_id: object, reason: str) -> None:
    error = error_of(rows({"id": "1", "text": "x"}, {"id": row_id, "text": "x"}, id_column="id"))

    assert error.startswith("a.x:3: the id in the column 'id' ")
    assert reason in error
    assert len(error) < 200


def test_a_missing_id_column_is_an_error_with_the_columns_there() -> None:
    assert error_of(rows({"review_id": "1", "text": "x"}, id_column="id")) == (
        "a.x:2: no column 'id' for the row's id; columns there: review_id, text; "
        "remedy: --id-column <one of them>"
    )


def test_a_row_may_bring_its_own_params() -> None:
    params = [{"seed": 1}, '{"seed": 1}', "", " ", None, {}, "{}"]

    found = rows(*({"text": "x", "params": p} for p in params))

    assert [r.row.params for r in found] == [{"seed": 1}] * 2 + [None] * 5
    (other,) = rows({"text": "x", "p": {"seed": 1}}, params_column="p")
    assert other.row.params == {"seed": 1}
    (without,) = rows({"text": "x", "params": 7}, params_column=None)
    assert without.row.params is None


@pytest.mark.parametrize("params", ["seed=1", "[1]", 7, [1]])
def test_params_of_another_shape_are_an_error_with_their_line(params: object) -> None:
    assert "a.x:2: the column 'params' must hold a JSON object of request parameters" in error_of(
        rows({"text": "x", "params": params})
    )


def test_params_are_checked_and_a_refusal_bears_the_line() -> None:
    def refuse(params: Mapping[str, Any]) -> None:
        if "sed" in params:
            raise InputError("unknown parameter 'sed'")

    fine, bad = {"text": "x", "params": {"seed": 1}}, {"text": "x", "params": '{"sed": 1}'}

    assert len(list(rows(fine, check_params=refuse))) == 1
    assert error_of(rows(fine, bad, check_params=refuse)) == "a.x:3: unknown parameter 'sed'"


def test_a_params_column_that_is_data_is_data() -> None:
    (by_name,) = rows({"params": "x"}, wanted=Wanted(variables=("params",)))
    (by_option,) = rows({"params": "x"}, columns={"text": "params"})
    (as_id,) = rows({"params": "x", "text": "y"}, id_column="params")

    assert by_name.row.values == {"params": "x"}
    assert by_option.row.values == {"text": "x"}
    assert (as_id.row.row_id, as_id.row.params) == ("x", None)


def test_a_model_without_variables_takes_any_record() -> None:
    assert values(rows({"a": 1}, wanted=Wanted(variables=()))) == [{}]


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (1, 1), (2, 2), (9, 3), (None, 3)])
def test_a_limit_counts_rows_made(limit: int | None, expected: int) -> None:
    records = [{"text": text} for text in (None, "a", "b", "c")]

    assert len(list(rows(*records, limit=limit, on_null="skip"))) == expected


def test_nothing_is_read_beyond_the_limit() -> None:
    records = read_records("-", stdin=io.BytesIO(b"a\nb\nc\n"), input_format="text")

    found = list(read_rows(records, TEXT, options=SourceOptions(limit=2)))

    assert len(found) == 2
    assert next(records).values == {"text": "c"}


def test_rows_can_be_taken_one_by_one() -> None:
    source_rows = rows({"text": "a"})

    assert next(source_rows).row.values == {"text": "a"}
    with pytest.raises(StopIteration):
        next(source_rows)


def test_optional_columns_are_taken_where_they_are_there() -> None:
    wanted = Wanted(variables=("a",), optional=("b", "c"))

    made = rows({"a": 1, "b": None}, {"a": 2, "x": 3}, wanted=wanted, columns={"b": "x"})

    assert values(made) == [{"a": 1}, {"a": 2, "b": 3}]


def test_whole_rows_are_all_columns_but_the_ids() -> None:
    wanted = Wanted(variables=(), takes_whole_rows=True)

    made = rows({"id": "r1", "a": None, "params": "p"}, wanted=wanted, id_column="id",
                params_column=None)  # fmt: skip

    assert values(made) == [{"a": None, "params": "p"}]
