"""Prompt templates, compiled once and filled by name.

Two syntaxes: ``str.format`` as MLflow's OpenAI flavor has it, and the double braces of MLflow's
prompt registry. What is filled in is never interpreted: a brace in a row's text stays a brace.
Filling is the hot path of a request (a few microseconds), so everything that can be decided is
decided here at load.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import TypeAlias

from flavor.errors import ErrorInfo, InputError, RowError
from flavor.types import Json, StrEnum

Render: TypeAlias = Callable[[Mapping[str, Json]], Json]


class Syntax(StrEnum):
    """How a template marks its variables."""

    FORMAT = "format"  # {name}, with {{ and }} for braces
    DOUBLE_BRACE = "double_brace"  # {{ name }}, every other brace is text


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A compiled template: ``render`` takes the values of ``variables`` as ``prepare`` has them."""

    render: Render
    variables: tuple[str, ...]


# Source: mlflow 3.17.2, prompt/constants.py, PROMPT_TEMPLATE_VARIABLE_PATTERN.
_DOUBLE_BRACE = re.compile(r"\{\{\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*\}\}", re.ASCII)
# Source: Python's library reference, "Format Specification Mini-Language".
_OF_INTEGERS = "bcdoxX"
_NUMBER = re.compile(rf"[{_OF_INTEGERS}eEfFgGn%]$", re.MULTILINE)
_JINJA_BLOCK = re.compile(r"\{%.*?%\}", re.DOTALL)


def compile_text(text: str, syntax: Syntax) -> Template:
    """Compile one text.

    Raises:
        InputError: the template cannot work, whatever the rows hold.
    """
    if syntax is Syntax.DOUBLE_BRACE:
        return _compile_double_brace(text)
    specs = _format_specs(text)
    if not specs:
        return _constant(text.format_map({}))
    variables = tuple(sorted(specs))
    numbers = tuple(name for name in variables if _NUMBER.search("\n".join(specs[name])))
    if not numbers:
        return Template(render=text.format_map, variables=variables)

    def render(values: Mapping[str, Json]) -> str:
        as_numbers = {n: _Digits(values[n]) for n in numbers if isinstance(values[n], str)}
        return text.format_map({**values, **as_numbers})

    return Template(render=render, variables=variables)


def compile_messages(messages: Json, syntax: Syntax) -> Template:
    """Compile a list of chat messages: role and content are filled, other keys stay as they are.

    MLflow's flavor drops the other keys (``name``, ``tool_calls``, ...); the API needs them.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise InputError("template: messages must be a list of objects with 'role' and 'content'")
    return _compile_list([_compile_message(message, syntax) for message in messages])


def prepare(
    names: Iterable[str], values: Mapping[str, Json], *, aliases: Mapping[str, Sequence[str]]
) -> dict[str, Json]:
    """Pick the values of ``names`` out of a row, as ``Template.render`` takes them.

    Raises:
        RowError: a value is missing or null.
    """
    return {name: fillable(name, _pick(name, values, aliases=aliases)) for name in names}


def fillable(name: str, value: Json) -> Json:
    """What a template is filled with: objects as JSON, a null never as the text "nan"."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):  # a data frame's null
        raise template_error(f"variable {name!r} is null")
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False)
    return value


def template_error(message: str) -> RowError:
    """The row cannot be put into the template; sending it would make no sense."""
    return RowError(ErrorInfo(type="TemplateError", message=message))


def _pick(name: str, values: Mapping[str, Json], *, aliases: Mapping[str, Sequence[str]]) -> Json:
    if name in values:
        return values[name]
    for alias in aliases.get(name, ()):
        if alias in values:
            return values[alias]
    raise template_error(f"variable {name!r} is missing")


def _constant(value: Json) -> Template:
    return Template(render=lambda _: value, variables=())


class _Digits(str):
    """A text where a number may be meant: to CSV a number is a text, to pandas it was none."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        """As the number's, where only a number has such a format. Raises ``ValueError``."""
        if not _NUMBER.search(spec):
            return str.__format__(self, spec)
        return format(int(self) if spec[-1] in _OF_INTEGERS else float(self), spec)


def _format_specs(text: str) -> dict[str, list[str]]:
    """The variables of a text, each with the formats that it is written in."""
    try:
        fields = list(Formatter().parse(text))
    except ValueError as error:
        raise InputError(
            f"template: {error}; write {{{{ and }}}} for braces that are text"
        ) from error
    specs: dict[str, list[str]] = {}
    for _, name, spec, conversion in fields:
        if name is not None:
            checked = _checked_name(name, spec or "", conversion=conversion)
            specs.setdefault(checked, []).append("" if conversion else spec or "")
    return specs


def _checked_name(name: str, spec: str, *, conversion: str | None) -> str:
    shown = f"template: {{{name}}}"
    if not name or name.isdigit():
        raise InputError(f"{shown} has no name; variables are filled by name")
    if "." in name or "[" in name:
        raise InputError(f"{shown} reaches into a value; give it a column of its own")
    if any(mark in name for mark in "\"'\n"):
        raise InputError(f"{shown} is no name; write {{{{ and }}}} for braces that are text")
    if "{" in spec:
        raise InputError(f"{shown} has a variable inside its format; write the format out")
    if conversion not in {None, "r", "s", "a"}:
        raise InputError(f"{shown} has an unknown conversion !{conversion}; use !r, !s or !a")
    return name


def _compile_double_brace(text: str) -> Template:
    if _JINJA_BLOCK.search(text):
        raise InputError(
            "template: Jinja2 blocks ({% ... %}) run code and are refused; use {{ name }} only"
        )
    parts = _DOUBLE_BRACE.split(text)  # text, name, text, name, ..., text
    if len(parts) == 1:
        return _constant(text)
    names = parts[1::2]

    def render(values: Mapping[str, Json]) -> str:
        filled = parts.copy()
        filled[1::2] = [str(values[name]) for name in names]
        return "".join(filled)

    return Template(render=render, variables=tuple(sorted(set(names))))


def _compile_message(message: Json, syntax: Syntax) -> Template:
    if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
        raise InputError("template: every message needs the keys 'role' and 'content'")
    return _compile_dict(
        {
            key: _compile_value(value, syntax) if key in {"role", "content"} else _constant(value)
            for key, value in message.items()
        }
    )


def _compile_value(value: Json, syntax: Syntax) -> Template:
    if isinstance(value, str):
        return compile_text(value, syntax)
    if isinstance(value, Mapping):
        return _compile_dict({key: _compile_value(item, syntax) for key, item in value.items()})
    if isinstance(value, Sequence):
        return _compile_list([_compile_value(item, syntax) for item in value])
    return _constant(value)


def _compile_dict(templates: Mapping[str, Template]) -> Template:
    variables = _union(templates.values())
    constant = {key: None if t.variables else t.render({}) for key, t in templates.items()}
    if not variables:
        return _constant(constant)
    filled = [(key, t.render) for key, t in templates.items() if t.variables]

    def render(values: Mapping[str, Json]) -> dict[str, Json]:
        rendered = constant.copy()
        for key, render_value in filled:
            rendered[key] = render_value(values)
        return rendered

    return Template(render=render, variables=variables)


def _compile_list(templates: Sequence[Template]) -> Template:
    variables = _union(templates)
    if not variables:
        return _constant([t.render({}) for t in templates])
    renders = [t.render for t in templates]
    return Template(render=lambda values: [r(values) for r in renders], variables=variables)


def _union(templates: Iterable[Template]) -> tuple[str, ...]:
    return tuple(sorted({name for template in templates for name in template.variables}))
