"""Objects are kept to the properties that their schema names, where nothing contradicts it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from services.worker.engines.guidance.closing import close_objects

CITY = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
CLOSED_CITY = {**CITY, "additionalProperties": False}


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    schema = copy.deepcopy(schema)
    close_objects(schema)
    return schema


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (CITY, CLOSED_CITY),
        ({"type": "array", "items": CITY}, {"type": "array", "items": CLOSED_CITY}),
        (
            {"anyOf": [CITY, {"type": "null"}]},
            {"anyOf": [CLOSED_CITY, {"type": "null"}]},
        ),
        (
            {"type": "object", "properties": {"at": {"$ref": "#/$defs/C"}}, "$defs": {"C": CITY}},
            {
                "type": "object",
                "properties": {"at": {"$ref": "#/$defs/C"}},
                "$defs": {"C": CLOSED_CITY},
                "additionalProperties": False,
            },
        ),
        # A property may have the name of a keyword.
        (
            {"type": "object", "properties": {"properties": CITY}},
            {
                "type": "object",
                "properties": {"properties": CLOSED_CITY},
                "additionalProperties": False,
            },
        ),
        ({"allOf": [CITY]}, {"allOf": [CLOSED_CITY]}),
    ],
)
def test_an_object_that_leaves_it_open_is_closed(
    schema: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert closed(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {**CITY, "additionalProperties": {"type": "integer"}},
        {**CITY, "patternProperties": {"^x": True}},
        {**CITY, "minProperties": 2},
        {**CITY, "required": ["name", "country"]},
        {**CITY, "unevaluatedProperties": False},
        {**CITY, "anyOf": [{"required": ["name"]}]},
        {"allOf": [CITY, {"properties": {"size": {}}}]},
        {"$ref": "#/$defs/C", "properties": {"x": {}}, "$defs": {"C": CITY}},
        {**CITY, "if": {"properties": {"name": {"const": "x"}}}, "then": {"required": ["y"]}},
        {"enum": [{"properties": {"a": 1}}], "default": {"properties": {}}},
        {"properties": "not an object"},
        {"items": [CITY, 5], "allOf": "no list", "not": CITY},
    ],
)
def test_what_says_more_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert closed(schema) == schema
