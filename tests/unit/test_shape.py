"""What STYLE asks of a file's shape and no linter checks. A failure names each place, file:line."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("flavor", "worker", "producer")

MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 50
MAX_PARAMETERS = 6
MAX_POSITIONAL = 3
"""The aim is one, and keyword-only after it; three is where a caller's order stops being plain."""

MEANINGLESS_NAMES = {"common", "helpers", "misc", "tools", "util", "utils"}

# Function -> why it may be larger than the rules say.
_SIGNATURE_OF_MLFLOW = "as its namesake in mlflow.openai, so that users change one import"
EXCEPTIONS = {
    "flavor.saving.log_model": _SIGNATURE_OF_MLFLOW,
    "flavor.saving.save_model": _SIGNATURE_OF_MLFLOW,
}

AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One source file, parsed."""

    path: Path
    name: str
    tree: ast.Module
    lines: int

    def place(self, node: ast.AST | None = None) -> str:
        """``file:line``, for people and editors."""
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One function or method, wherever it stands."""

    module: Module
    node: AnyFunction
    name: str  # with the names of what it stands in
    is_method: bool

    @property
    def place(self) -> str:
        """``file:line name``."""
        return f"{self.module.place(self.node)} {self.name}"

    @property
    def is_excepted(self) -> bool:
        """Whether it stands in ``EXCEPTIONS``."""
        return f"{self.module.name}.{self.name}" in EXCEPTIONS

    @property
    def positional(self) -> int:
        """How many arguments a caller may give without their names, ``self`` aside."""
        args = self.node.args
        is_bound = self.is_method and not _has_decorator(self.node, "staticmethod")
        return len(args.posonlyargs) + len(args.args) - is_bound


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the three packages."""
    return tuple(_read(path) for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py")))


@cache
def functions() -> tuple[Function, ...]:
    """Every function of every module, nested ones included."""
    return tuple(found for module in modules() for found in _functions(module, module.tree, ""))


def test_there_is_something_to_check() -> None:
    """Else every check below would pass on nothing."""
    assert len(modules()) > 50
    assert len(functions()) > 300
    assert {name for name in EXCEPTIONS if name not in _qualified_names()} == set()


def test_functions_stay_short() -> None:
    _fail_with(
        f"{found.place} has {lines} lines, more than {MAX_FUNCTION_LINES}"
        for found in functions()
        if (lines := _lines(found.node)) > MAX_FUNCTION_LINES and not found.is_excepted
    )


def test_modules_stay_short() -> None:
    _fail_with(
        f"{module.place()} has {module.lines} lines, more than {MAX_MODULE_LINES}"
        for module in modules()
        if module.lines > MAX_MODULE_LINES
    )


def test_few_arguments_go_by_position() -> None:
    _fail_with(
        f"{found.place} takes {found.positional} by position, more than {MAX_POSITIONAL}"
        for found in functions()
        if found.positional > MAX_POSITIONAL and not found.is_excepted
    )


def test_functions_take_few_arguments() -> None:
    _fail_with(
        f"{found.place} takes {count}, more than {MAX_PARAMETERS}"
        for found in functions()
        if (count := found.positional + len(found.node.args.kwonlyargs)) > MAX_PARAMETERS
        and not found.is_excepted
    )


def test_imports_are_absolute() -> None:
    _fail_with(
        f"{module.place(node)} imports relatively"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.level
    )


def test_module_names_mean_something() -> None:
    _fail_with(
        f"{module.place()} is named for nothing in particular"
        for module in modules()
        if MEANINGLESS_NAMES & set(module.name.split("."))
    )


def test_public_things_are_explained() -> None:
    _fail_with(place for module in modules() for place in _unexplained(module))


def _lua_files() -> list[Path]:
    return sorted((ROOT / "worker" / "lua").glob("*.lua"))


def test_every_lua_script_is_called_by_its_name() -> None:
    """STYLE 8: the one Python function that calls a script bears its name."""
    named = {
        node.value
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }

    _fail_with(
        f"{_shown(path)}:1 no Python names it" for path in _lua_files() if path.stem not in named
    )


@pytest.mark.parametrize("path", _lua_files(), ids=lambda path: path.name)
def test_a_lua_script_says_what_it_takes_and_returns(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    body_start = next((n for n, line in enumerate(lines) if not line.startswith("--")), len(lines))
    head, body = lines[:body_start], lines[body_start:]
    explained = _slots(head, r"^-- (KEYS|ARGV)\[(\d+)(…?)\] ")

    _fail_with(
        _missing_from_head(path, head),
        (
            f"{_shown(path)}:{number} uses {kind}[{slot}], which its head does not explain"
            for number, line in enumerate(body, body_start + 1)
            for kind, slot in re.findall(r"\b(KEYS|ARGV)\[(\d+)\]", line)
            if not _is_explained(kind, int(slot), explained)
        ),
    )


def test_every_redis_key_is_in_the_table() -> None:
    """That table is what an operator reads before touching Redis."""
    table = _documented_keys()
    used = _used_keys()

    _fail_with(
        (
            f"{place} makes {key!r}, which the table does not list"
            for key, (place, _) in used.items()
            if key not in table
        ),
        (
            f"{place} calls {key!r} a {kind}, the table a {table[key]}"
            for key, (place, kind) in used.items()
            if kind and key in table and kind != table[key]
        ),
        (f"worker/keys.py:1 lists {key!r}, which nothing makes" for key in table.keys() - used),
    )


def _fail_with(*violations: Iterator[str]) -> None:
    if found := list(chain(*violations)):
        pytest.fail("\n".join(found), pytrace=False)


def _read(path: Path) -> Module:
    text = path.read_text("utf-8")
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return Module(path=path, name=name, tree=ast.parse(text), lines=len(text.splitlines()))


def _functions(module: Module, parent: ast.AST, prefix: str) -> Iterator[Function]:
    for node in ast.iter_child_nodes(parent):
        inner = prefix
        if isinstance(node, AnyFunction | ast.ClassDef):
            inner = f"{prefix}{node.name}."
        if isinstance(node, AnyFunction):
            yield Function(
                module=module,
                node=node,
                name=f"{prefix}{node.name}",
                is_method=isinstance(parent, ast.ClassDef),
            )
        yield from _functions(module, node, inner)


def _qualified_names() -> set[str]:
    return {f"{found.module.name}.{found.name}" for found in functions()}


def _lines(node: AnyFunction) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _has_decorator(node: AnyFunction, name: str) -> bool:
    return any(getattr(d, "attr", getattr(d, "id", "")) == name for d in node.decorator_list)


def _unexplained(module: Module) -> Iterator[str]:
    """Public modules, classes, functions and methods without a docstring."""
    if module.lines and not ast.get_docstring(module.tree):
        yield f"{module.place()} has no docstring"
    scopes: list[ast.Module | ast.ClassDef] = [module.tree]
    for scope in scopes:
        for node in scope.body:
            if not isinstance(node, AnyFunction | ast.ClassDef) or node.name.startswith("_"):
                continue
            if isinstance(node, ast.ClassDef):
                scopes.append(node)
            if not ast.get_docstring(node) and not _is_second_definition(node):
                yield f"{module.place(node)} {node.name} has no docstring"


def _is_second_definition(node: AnyFunction | ast.ClassDef) -> bool:
    """Overloads and setters are explained by the definition they belong to."""
    return isinstance(node, AnyFunction) and any(
        _has_decorator(node, name) for name in ("overload", "setter")
    )


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _missing_from_head(path: Path, head: list[str]) -> Iterator[str]:
    wanted: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("say what it does", lambda line: bool(re.match(r"-- [A-Z].*", line))),
        ("list its keys", lambda line: line.startswith("-- KEYS[1] ")),
        ("say what it returns", lambda line: line.startswith("-- returns ")),
    )
    for what, is_it in wanted:
        if not any(is_it(line) for line in head):
            yield f"{_shown(path)}:1 its head does not {what}"


def _slots(lines: list[str], pattern: str) -> list[tuple[str, int, bool]]:
    """Explained slots: KEYS or ARGV, number, and whether all higher ones are meant too."""
    matches = (re.match(pattern, line) for line in lines)
    return [(m[1], int(m[2]), bool(m[3])) for m in matches if m]


def _is_explained(kind: str, slot: int, explained: list[tuple[str, int, bool]]) -> bool:
    return any(k == kind and (slot == n or (is_open and slot > n)) for k, n, is_open in explained)


def _keys_module() -> Module:
    return next(module for module in modules() if module.name == "worker.keys")


def _documented_keys() -> dict[str, str]:
    """Key pattern -> its type, from the docstring's table."""
    docstring = ast.get_docstring(_keys_module().tree) or ""
    rows = re.findall(r"^``(\S+)``\s+([A-Z]+)\s", docstring, re.MULTILINE)
    return {_pattern(re.sub(r"\b[A-Z]\b", "*", key)): kind for key, kind in rows}


def _used_keys() -> dict[str, tuple[str, str]]:
    """Key pattern -> where it is made and which type its function names ("" for constants)."""
    module = _keys_module()
    used = {}
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.JoinedStr):
            if (text := _text(node.value)) is not None:
                used[_pattern(text)] = (module.place(node), "")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            kind = (ast.get_docstring(node) or "").partition(":")[0]
            for returned in (n for n in ast.walk(node) if isinstance(n, ast.Return)):
                used[_pattern(_text(returned.value) or "?")] = (module.place(node), kind)
    return used


def _text(node: ast.expr | None) -> str | None:
    """A string as written, with ``*`` for what is filled in; None where it is no string."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) or "*" for part in parts)
        case _:
            return None


def _pattern(key: str) -> str:
    """One spelling for all: whatever stands in a hash tag is one ``*``."""
    return re.sub(r"\{[^}]*\}", "{*}", key)
