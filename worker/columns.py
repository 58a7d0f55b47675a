"""The columns of rows that are JSON objects: their names, and what kinds of values each holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flavor.types import Json, StrEnum

MAX_COLUMNS = 1000
"""Beyond so many names they are taken for data: such rows have no columns to speak of."""

_SHAPES_KEPT = 1000
_SMALLEST_INT, _LARGEST_INT = -(2**63), 2**63 - 1


class Kind(StrEnum):
    """What a column holds, in the words of MLflow's schemas. Closed."""

    STRING = "string"
    LONG = "long"  # fits 64 bits
    DOUBLE = "double"
    BOOLEAN = "boolean"
    ANY = "any"  # objects, lists, or values of several kinds


_KINDS: dict[type, Kind] = {
    str: Kind.STRING,
    int: Kind.LONG,
    float: Kind.DOUBLE,
    bool: Kind.BOOLEAN,
}


@dataclass(slots=True)
class Columns:
    """What is learnt of the columns from one row after another; in the order of their coming."""

    optional: set[str] = field(default_factory=set)
    """Those that are null or missing in some row."""
    is_overfull: bool = False
    _kinds: dict[str, Kind | None] = field(default_factory=dict)
    _shapes: set[tuple[tuple[str, type | None], ...]] = field(default_factory=set)
    _is_first: bool = True

    @property
    def kinds(self) -> dict[str, Kind]:
        """Each column's kind; a column that was always null is text. Empty beyond the maximum."""
        if self.is_overfull:
            return {}
        return {name: kind or Kind.STRING for name, kind in self._kinds.items()}

    def add(self, values: Mapping[str, Json]) -> None:
        """Learn from one row. Rows of a shape that was seen before cost next to nothing."""
        shape = tuple([(name, _type_of(value)) for name, value in values.items()])
        if shape in self._shapes or self.is_overfull:
            return
        if len(self._shapes) >= _SHAPES_KEPT:
            self._shapes.clear()
        self._shapes.add(shape)
        self._learn(dict(shape))

    def _learn(self, shape: Mapping[str, type | None]) -> None:
        new = shape.keys() - self._kinds.keys()
        self.optional |= self._kinds.keys() - shape.keys()
        if not self._is_first:
            self.optional |= new
        self._is_first = False
        for name, found in shape.items():
            known = self._kinds.get(name)
            if found is type(None):
                self.optional.add(name)
                self._kinds[name] = known
            else:
                self._kinds[name] = _joined(known, _KINDS.get(found or object, Kind.ANY))
        if len(self._kinds) > MAX_COLUMNS:
            self.is_overfull = True


def _type_of(value: Json) -> type | None:
    """None for an integer that has no 64 bits."""
    kind = type(value)
    if kind is int and not _SMALLEST_INT <= value <= _LARGEST_INT:
        return None
    return kind


def _joined(known: Kind | None, found: Kind) -> Kind:
    if known is None or known is found:
        return found
    return Kind.DOUBLE if {known, found} == {Kind.LONG, Kind.DOUBLE} else Kind.ANY
