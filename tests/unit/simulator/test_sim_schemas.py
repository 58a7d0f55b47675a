"""Structured answers conform to the schema they are asked for."""

from typing import Any

import pytest

from producer.simulator.errors import ApiError
from producer.simulator.schemas import conforming

NODE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        "more": {"type": "array", "items": {"$ref": "#/$defs/node"}},
    },
    "required": ["name", "next", "more"],
}


def make(schema: dict[str, Any], *, said: str = "positive", number: int = 7) -> Any:
    return conforming(schema, said=said, number=number)


def test_objects_nest_and_have_all_their_properties() -> None:
    schema = {
        "type": "object",
        "properties": {
            "label": {"enum": ["Negative", "Positive"]},
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            "stars": {"type": "integer", "minimum": 1, "maximum": 5},
            "is_sure": {"type": "boolean"},
            "words": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "inner": {"type": "object", "properties": {"kind": {"const": "review"}}},
            "none": {"type": "null"},
            "maybe": {"type": ["null", "string"]},
        },
    }

    assert make(schema) == {
        "label": "Positive",
        "score": 0.5,
        "stars": 3,
        "is_sure": False,
        "words": ["positive", "positive"],
        "inner": {"kind": "review"},
        "none": None,
        "maybe": "positive",
    }


@pytest.mark.parametrize("number", range(12))
def test_numbers_keep_their_bounds(number: int) -> None:
    assert 2 < make({"type": "integer", "exclusiveMinimum": 2, "maximum": 4}, number=number) <= 4
    assert 0 <= make({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, number=number) < 1
    assert make({"type": "number", "maximum": -5}, number=number) <= -5
    assert make({"type": "integer", "minimum": 2.5}, number=number) >= 3
    assert make({"enum": [1, 2]}, number=number) in (1, 2)


def test_strings_keep_their_length_and_format() -> None:
    assert make({"type": "string", "maxLength": 3}) == "pos"
    assert make({"type": "string", "minLength": 10}) == "positive.."
    assert make({"type": "string", "format": "date"}) == "2000-01-01"


def test_a_schema_that_contains_itself_ends() -> None:
    value = make({"$ref": "#/$defs/node", "$defs": {"node": NODE}})

    assert value["name"] == "positive"
    assert value["next"]["name"] == "positive"


def test_a_schema_that_demands_itself_for_ever_ends_too() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}

    assert "next" in make(node)
    assert make({"$ref": "#"}) is not None


def test_a_reference_to_nowhere_is_refused() -> None:
    with pytest.raises(ApiError, match="not found"):
        make({"$ref": "#/$defs/node"})


def test_odd_schemas_do_no_harm() -> None:
    assert make({"properties": {"a": True}}) == {"a": None}
    assert make({"allOf": [{"type": "string"}]}) == "positive"
    assert make({"type": "array", "maxItems": 0}) == []
