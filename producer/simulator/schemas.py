"""A value that conforms to a JSON schema, for structured answers and tools' arguments.

Covers what OpenAI's structured outputs allow: types, enum, const, properties, items, anyOf,
``$ref`` into ``$defs``, bounds, and the common formats. Not: ``pattern``, ``not``, ``if``.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any

from producer.simulator.errors import ApiError

MAX_DEPTH = 12

_FORMATS = {
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "date-time": "2000-01-01T00:00:00Z",
    "email": "simulated@example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/simulated",
    "ipv4": "127.0.0.1",
    "duration": "P1D",
}


def conforming(schema: Mapping[str, Any], *, said: str, number: int) -> object:
    """A value that conforms to ``schema``.

    ``said`` is what strings say, and picks an enum's member of that name; ``number`` picks
    all else.

    Raises:
        ApiError: the schema refers to what is not in it.
    """
    return _Builder(root=schema, said=said, number=number).value(schema, depth=0)


class _Builder:
    """What stays the same on the way down a schema."""

    def __init__(self, *, root: Mapping[str, Any], said: str, number: int) -> None:
        self._root = root
        self._said = said
        self._number = number

    def value(self, schema: object, *, depth: int) -> object:
        """A value for this part of the schema, ``depth`` levels down."""
        if not isinstance(schema, Mapping):
            return None
        if "$ref" in schema and depth <= MAX_DEPTH:
            return self.value(self._referred(schema["$ref"]), depth=depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._member(schema["enum"])
        branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if branches:
            return self.value(self._branch(branches, depth=depth), depth=depth + 1)
        return self._typed(schema, depth=depth)

    def _typed(self, schema: Mapping[str, Any], *, depth: int) -> object:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null")
        match kind:
            case "object":
                return self._object(schema, depth=depth)
            case "array":
                return self._array(schema, depth=depth)
            case "integer" | "number":
                return self._bounded(schema, is_whole=kind == "integer")
            case "boolean":
                return self._number % 2 == 0
            case "null":
                return None
            case _:
                return self._string(schema)

    def _object(self, schema: Mapping[str, Any], *, depth: int) -> dict[str, object]:
        properties = schema.get("properties") or {}
        if depth > MAX_DEPTH:  # a schema that contains itself: no more than it demands
            properties = {k: v for k, v in properties.items() if k in schema.get("required", ())}
        if depth > 2 * MAX_DEPTH:
            return {}
        return {name: self.value(inner, depth=depth + 1) for name, inner in properties.items()}

    def _array(self, schema: Mapping[str, Any], *, depth: int) -> list[object]:
        least = schema.get("minItems", 0)
        count = (
            0 if depth > MAX_DEPTH else min(max(least, 1), schema.get("maxItems", max(least, 1)))
        )
        return [self.value(schema.get("items", {}), depth=depth + 1) for _ in range(count)]

    def _bounded(self, schema: Mapping[str, Any], *, is_whole: bool) -> float:
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        step = 1 if is_whole else 0.25
        start = ceil(low) if low is not None and is_whole else low
        if start is None:
            start = 0 if high is None else high - 100
        if start == schema.get("exclusiveMinimum"):
            start += step
        room = int(min(100, (high - start) / step if high is not None else 100))
        if high is not None and start + room * step == schema.get("exclusiveMaximum"):
            room -= 1
        value: float = start + step * (self._number % (max(0, room) + 1))
        return int(value) if is_whole else value

    def _string(self, schema: Mapping[str, Any]) -> str:
        fixed = _FORMATS.get(schema.get("format", ""))
        if fixed is not None:
            return fixed
        return self._said.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]

    def _member(self, members: list[object]) -> object:
        for member in members:
            if isinstance(member, str) and member.lower() == self._said:
                return member
        return members[self._number % len(members)]

    def _branch(self, branches: list[object], *, depth: int) -> object:
        """The first branch; near the depth limit a null if there is one."""
        nulls = [b for b in branches if isinstance(b, Mapping) and b.get("type") == "null"]
        if nulls and depth > MAX_DEPTH // 2:
            return nulls[0]
        return next((b for b in branches if b not in nulls), branches[0])

    def _referred(self, reference: object) -> object:
        node: object = self._root
        for name in str(reference).removeprefix("#").strip("/").split("/"):
            if name and isinstance(node, Mapping) and name in node:
                node = node[name]
            elif name:
                message = f"Invalid schema: reference '{reference}' not found."
                raise ApiError(message, param="response_format", code="invalid_json_schema")
        return node
