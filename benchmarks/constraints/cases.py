"""Forms as clients ask for them, each with a text that has it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """A form: `kind` is "json_schema", "regex" or "ebnf"."""

    name: str
    kind: str
    form: str
    text: str


def _schema(name: str, schema: dict[str, Any], value: Any) -> Case:
    return Case(name, "json_schema", json.dumps(schema), json.dumps(value, ensure_ascii=False))


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


_STRING = {"type": "string"}
_PERSON = _object(
    {
        "name": _STRING,
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "format": "email"},
        "tags": {"type": "array", "items": _STRING, "maxItems": 10},
    }
)
_TREE = {
    "$defs": {
        "Node": _object(
            {
                "value": {"type": "number"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            }
        )
    },
    "$ref": "#/$defs/Node",
}
_COUNTRIES = [f"Country number {number}" for number in range(1000)]
_WEATHER = _object({"city": _STRING, "unit": {"enum": ["celsius", "fahrenheit"]}})
_MAIL = _object({"to": {"type": "string", "format": "email"}, "subject": _STRING, "body": _STRING})
_SPARSE = {
    "type": "object",
    "properties": {f"field_{number}": _STRING for number in range(60)},
}

CASES = (
    _schema("any object", {"type": "object"}, {"a": [1, {"b": None}], "text": "some words"}),
    _schema(
        "person",
        _PERSON,
        {
            "name": "Ada Lovelace",
            "age": 36,
            "email": "ada@example.org",
            "tags": ["mathematics", "engines", "Grüße"],
        },
    ),
    _schema(
        "recursive tree",
        _TREE,
        {
            "value": 1.5,
            "children": [
                {"value": 2, "children": []},
                {"value": 3, "children": [{"value": 4, "children": []}]},
            ],
        },
    ),
    _schema(
        "tool call, one of two",
        {
            "anyOf": [
                _object({"name": {"const": "get_weather"}, "arguments": _WEATHER}),
                _object({"name": {"const": "send_mail"}, "arguments": _MAIL}),
            ]
        },
        {
            "name": "send_mail",
            "arguments": {
                "to": "x@example.org",
                "subject": "Hello",
                "body": "I write to say that the meeting is at ten.\nBest wishes",
            },
        },
    ),
    _schema(
        "enum of 1000", _object({"country": {"enum": _COUNTRIES}}), {"country": _COUNTRIES[729]}
    ),
    _schema("60 optional keys", _SPARSE, {f"field_{number}": "word" for number in range(0, 60, 7)}),
    _schema(
        "patterns and lengths",
        _object(
            {
                "id": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{6}$"},
                "when": {"type": "string", "format": "date-time"},
                "note": {"type": "string", "minLength": 10, "maxLength": 200},
                "rows": {
                    "type": "array",
                    "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 4},
                    "maxItems": 50,
                },
            }
        ),
        {
            "id": "AB123456",
            "when": "2026-11-28T12:30:00Z",
            "note": "A note that says what has to be said.",
            "rows": [[1, 2, 3], [40, 50], [], [6, 7, 8, 9]],
        },
    ),
    Case("date", "regex", r"\d{4}-(0[1-9]|1[0-2])-[0-3]\d", "2026-11-28"),
    Case(
        "url",
        "regex",
        r"https?://[a-z0-9.]+(/[A-Za-z0-9_.-]*)*",
        "https://example.org/a/b_c/d.html",
    ),
    Case(
        "sums",
        "ebnf",
        "root ::= expr\n"
        'expr ::= term (ws ("+" | "-") ws term)*\n'
        'term ::= factor (ws ("*" | "/") ws factor)*\n'
        'factor ::= [0-9]+ | "(" ws expr ws ")"\n'
        "ws ::= [ ]?\n",
        "(12 + 34) * 5 - 6 / (7 + 8)",
    ),
)

KEYWORDS = {
    "$ref to itself": _TREE,
    "anyOf": {"anyOf": [{"type": "null"}, {"type": "integer"}]},
    "oneOf with const": {
        "oneOf": [_object({"kind": {"const": "a"}}), _object({"kind": {"const": "b"}})]
    },
    "allOf": {
        "allOf": [
            {"type": "object", "properties": {"a": _STRING}, "required": ["a"]},
            {"type": "object", "properties": {"b": _STRING}, "required": ["b"]},
        ]
    },
    "enum of objects": {"enum": [{"a": 1}, [2], None]},
    "minimum, maximum": {"type": "number", "minimum": -1.5, "maximum": 2.25},
    "multipleOf": {"type": "integer", "multipleOf": 7},
    "minLength, maxLength": {"type": "string", "minLength": 2, "maxLength": 5},
    "pattern": {"type": "string", "pattern": "^[a-z]+$"},
    "format: date-time": {"type": "string", "format": "date-time"},
    "prefixItems": {"type": "array", "prefixItems": [{"type": "integer"}, _STRING]},
    "minItems, maxItems": {"type": "array", "items": _STRING, "minItems": 2, "maxItems": 3},
    "uniqueItems": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
    "patternProperties": {"type": "object", "patternProperties": {"^s_": _STRING}},
    "additionalProperties schema": {"type": "object", "additionalProperties": {"type": "integer"}},
    "minProperties": {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "minProperties": 2,
    },
    "not": {"not": {"type": "string"}},
    "if, then": {"if": {"type": "object"}, "then": {"required": ["a"]}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "contains": {"type": "array", "contains": {"type": "integer"}},
}
"""Schemas that each need a keyword. Below: a value that each must keep out, and one to let in."""

WRONG = {
    "$ref to itself": {"value": 1, "children": [{"value": "x", "children": []}]},
    "anyOf": "text",
    "oneOf with const": {"kind": "c"},
    "allOf": {"a": "x"},
    "enum of objects": {"a": 2},
    "minimum, maximum": 2.26,
    "multipleOf": 8,
    "minLength, maxLength": "abcdef",
    "pattern": "A",
    "format: date-time": "yesterday",
    "prefixItems": ["x", "x"],
    "minItems, maxItems": ["a"],
    "uniqueItems": [1, 1],
    "patternProperties": {"s_a": 1},
    "additionalProperties schema": {"a": "x"},
    "minProperties": {"a": 1},
    "not": "text",
    "if, then": {"b": 1},
    "dependentRequired": {"a": 1},
    "contains": ["x"],
}

RIGHT = {
    "$ref to itself": {"value": 1, "children": [{"value": 2, "children": []}]},
    "anyOf": 12,
    "oneOf with const": {"kind": "b"},
    "allOf": {"a": "x", "b": "y"},
    "enum of objects": {"a": 1},
    "minimum, maximum": 2.25,
    "multipleOf": 14,
    "minLength, maxLength": "abc",
    "pattern": "abc",
    "format: date-time": "2026-11-28T12:30:00Z",
    "prefixItems": [1, "x"],
    "minItems, maxItems": ["a", "b"],
    "uniqueItems": [1, 2],
    "patternProperties": {"s_a": "x"},
    "additionalProperties schema": {"a": 1},
    "minProperties": {"a": 1, "b": 2},
    "not": 12,
    "if, then": {"a": 1},
    "dependentRequired": {"a": 1, "b": 2},
    "contains": ["x", 1],
}
