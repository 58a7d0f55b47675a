"""A model as it was logged: plain data, without credentials, read without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flavor.errors import InputError
from flavor.template import Syntax, Template, compile_messages, compile_text
from flavor.types import Json, Task

# What the flavor appends to a chat without variables, or uses in place of no messages at all.
# Source: mlflow 3.17.2, openai/model.py, _ContentFormatter.
IMPLICIT_MESSAGE: Mapping[str, Json] = {"role": "user", "content": "{content}"}
IMPLICIT_PROMPT = "{prompt}"

TEXT_ALIASES = ("input", "content")
"""Of ``text``, the column of a model that takes one nameless text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What was logged and where.

    ``uri`` is as the user gave it, ``resolved_uri`` names the same model for ever (an alias may
    move). ``variables`` are the names that rows must supply. Where the template names none, the
    text goes into an *implicit* variable; ``aliases`` are the columns accepted in its stead, and
    ``accepts_messages`` says that a chat history in a ``messages`` column is, too. ``params`` are
    the logged parameters, overlaid by the defaults of the signature's.

    A pyfunc may have ``optional`` inputs, or, where it names none, it ``takes_whole_rows``.
    """

    uri: str
    resolved_uri: str
    model_id: str | None = None
    registered_name: str | None = None
    registered_version: str | None = None
    task: Task
    openai_model: str | None = None
    template: Json = None
    syntax: Syntax = Syntax.FORMAT
    variables: tuple[str, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    accepts_messages: bool = False
    optional: tuple[str, ...] = ()
    takes_whole_rows: bool = False
    params: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """What a template asks of a row; see ``ModelSpec`` for the names."""

    variables: tuple[str, ...]
    aliases: Mapping[str, tuple[str, ...]]
    accepts_messages: bool


def compile_template(task: Task, template: Json, *, syntax: Syntax) -> Template:
    """The template as rows will fill it, with the implicit variable where it names none.

    Raises:
        InputError: it cannot work.
    """
    if task is Task.CHAT:
        return _compile_chat(template, syntax)
    if not isinstance(template or "", str):
        raise InputError("template: the prompt of a completions model must be a text")
    return compile_text(template or IMPLICIT_PROMPT, syntax)


def read_slots(task: Task, template: Json, *, syntax: Syntax, column: str | None) -> Slots:
    """What rows must supply. ``column`` is the signature's only named input, if any."""
    if task is Task.EMBEDDINGS:
        return _implicit("text", TEXT_ALIASES, column=column)
    compiled = compile_template(task, template, syntax=syntax)
    if task is Task.CHAT and not (template and compile_messages(template, syntax).variables):
        return _implicit("content", ("text",), column=column, accepts_messages=True)
    if task is Task.COMPLETIONS and not template:
        return _implicit("prompt", ("text",), column=column)
    aliases: dict[str, tuple[str, ...]] = {}
    if column and len(compiled.variables) == 1 and column not in compiled.variables:
        aliases[compiled.variables[0]] = (column,)
    return Slots(variables=compiled.variables, aliases=aliases, accepts_messages=False)


def _compile_chat(template: Json, syntax: Syntax) -> Template:
    if template:
        compiled = compile_messages(template, syntax)
        if compiled.variables:
            return compiled
    # A double-brace template has the implicit message as well, in its own syntax.
    content = "{content}" if syntax is Syntax.FORMAT else "{{content}}"
    return compile_messages([*(template or []), {**IMPLICIT_MESSAGE, "content": content}], syntax)


def _implicit(
    name: str, aliases: tuple[str, ...], *, column: str | None, accepts_messages: bool = False
) -> Slots:
    if column and column not in {name, *aliases}:
        aliases = (*aliases, column)
    return Slots(variables=(name,), aliases={name: aliases}, accepts_messages=accepts_messages)
