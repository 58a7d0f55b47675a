"""Templates: filled by name, values never interpreted, refused when they cannot work."""

from __future__ import annotations

import re
from string import Formatter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flavor.errors import InputError, RowError
from flavor.template import Syntax, compile_messages, compile_text, prepare


def fill(text: str, syntax: Syntax = Syntax.FORMAT, /, **values: Any) -> Any:
    template = compile_text(text, syntax)
    return template.render(prepare(template.variables, values, aliases={}))


@given(value=st.text(), other=st.text())
def test_values_are_never_interpreted(value: str, other: str) -> None:
    assert fill("a {x} b {y}{{}}", x=value, y=other) == f"a {value} b {other}{{}}"
    assert fill("a {{x}} b {{ y }}{}", Syntax.DOUBLE_BRACE, x=value, y=other) == (
        f"a {value} b {other}{{}}"
    )


@given(text=st.text(alphabet="ab{}.[]!:0 "))
def test_every_text_is_refused_or_renders_as_str_format_does(text: str) -> None:
    try:
        template = compile_text(text, Syntax.FORMAT)
    except InputError:
        return
    values = dict.fromkeys(template.variables, "v")
    try:
        expected = Formatter().vformat(text, (), values)
    except ValueError:  # a format that text has not
        with pytest.raises(ValueError, match=r".*"):
            template.render(values)
    else:
        assert template.render(values) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "no name"),
        ("{0}", "no name"),
        ("{a.b}", "reaches into"),
        ("{a[0]}", "reaches into"),
        ("{x:{w}}", "inside its format"),
        ("{x!z}", "unknown conversion"),
        ("{", "template:"),
        ("a } b", "template:"),
        ('{"label": 1}', "is no name"),
    ],
)
def test_a_template_that_cannot_work_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        compile_text(text, Syntax.FORMAT)


@pytest.mark.parametrize(
    ("value", "filled"),
    [
        (3, "3"),
        (1.5, "1.5"),
        (True, "True"),
        ({"ä": [1, None]}, '{"ä": [1, null]}'),
        (["a"], '["a"]'),
        ("", ""),
    ],
)
@pytest.mark.parametrize("syntax", Syntax)
def test_numbers_are_formatted_and_objects_are_json(
    value: Any, filled: str, syntax: Syntax
) -> None:
    text = "{x}" if syntax is Syntax.FORMAT else "{{x}}"

    assert fill(text, syntax, x=value) == filled


def test_formats_and_conversions_work() -> None:
    assert fill("{x:.2f} {y!r} {y:>4}", x=1, y="b") == "1.00 'b'    b"


@pytest.mark.parametrize(
    ("text", "value", "filled"),
    [
        ("{x:.2f} of {x}", "4.5", "4.50 of 4.5"),
        ("{x:,d}", "1200", "1,200"),
        ("{x:.0%}", "0.25", "25%"),
        ("{x:g}", " 1e3 ", "1000"),
        ("{x:>5}", "4.5", "  4.5"),  # a format that texts have, too
        ("{x!s:.3}", "4.555", "4.5"),
        ("{x:.1f}", 2, "2.0"),
    ],
)
def test_a_number_that_is_a_text_as_in_a_csv_file_has_a_numbers_formats(
    text: str, value: Any, filled: str
) -> None:
    assert fill(text, x=value) == filled


@pytest.mark.parametrize(("text", "value"), [("{x:.2f}", "good"), ("{x:d}", "4.5")])
def test_a_text_that_is_no_such_number_does_not_fit(text: str, value: str) -> None:
    with pytest.raises(ValueError, match=re.escape(value)):
        fill(text, x=value)


@pytest.mark.parametrize("null", [None, float("nan")])
def test_a_null_is_an_error_and_never_text(null: Any) -> None:
    with pytest.raises(RowError, match="'x' is null") as caught:
        fill("{x}", x=null)

    assert caught.value.info.type == "TemplateError"


def test_a_missing_variable_is_an_error_and_an_alias_stands_in() -> None:
    assert prepare(["content"], {"text": "a"}, aliases={"content": ("text",)}) == {"content": "a"}
    with pytest.raises(RowError, match="'content' is missing"):
        prepare(["content"], {"body": "a"}, aliases={"content": ("text",)})


def test_double_braces_leave_every_other_brace_alone() -> None:
    template = compile_text('{"a": {{ b.c }}, "d": {{2}} } {{ }}', Syntax.DOUBLE_BRACE)

    assert template.variables == ("b.c",)
    assert template.render({"b.c": 1}) == '{"a": 1, "d": {{2}} } {{ }}'


def test_jinja_blocks_are_refused_with_their_reason() -> None:
    with pytest.raises(InputError, match="Jinja2"):
        compile_text("{% for x in y %}{{ x }}{% endfor %}", Syntax.DOUBLE_BRACE)


def test_only_role_and_content_of_a_message_are_filled() -> None:
    message = {
        "role": "{role}",
        "content": [{"type": "text", "text": "{a}"}, ["{b}", 3, None]],
        "name": "{untouched}",
        "tool_calls": [{"function": {"arguments": '{"x": 1}'}}],
    }

    template = compile_messages([message, {"role": "user", "content": None}], Syntax.FORMAT)

    assert template.variables == ("a", "b", "role")
    assert template.render({"role": "tool", "a": "1", "b": "2"}) == [
        {
            **message,
            "role": "tool",
            "content": [{"type": "text", "text": "1"}, ["2", 3, None]],
        },
        {"role": "user", "content": None},
    ]


def test_rendering_leaves_the_template_as_it_was() -> None:
    template = compile_messages([{"role": "user", "content": {"k": "{a}"}}], Syntax.FORMAT)

    first = template.render({"a": "1"})
    second = template.render({"a": "2"})

    assert first == [{"role": "user", "content": {"k": "1"}}]
    assert second == [{"role": "user", "content": {"k": "2"}}]


@pytest.mark.parametrize("messages", ["text", 3, ["text"], [{"role": "user"}]])
def test_what_is_no_list_of_messages_is_refused(messages: Any) -> None:
    with pytest.raises(InputError, match="'role' and 'content'"):
        compile_messages(messages, Syntax.FORMAT)
