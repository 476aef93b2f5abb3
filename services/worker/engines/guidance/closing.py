"""Keeps objects to the properties that their schema names.

JSON Schema allows any further property unless it says otherwise, and hardly any schema does. A
model that is held to such a schema may then go on with properties of its own for as long as it
likes. What is valid for the closed schema is valid for the open one, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# In a schema with one of these, closing one object may contradict what another place says of it.
_COMBINING = frozenset(
    {
        "not",
        "if",
        "then",
        "else",
        "dependentSchemas",
        "unevaluatedProperties",
        "$dynamicRef",
        "$recursiveRef",
    }
)
_CHOICES = ("anyOf", "oneOf", "allOf")
# What an object's schema may say beside its properties when it is closed.
_OPENING = frozenset(
    {"additionalProperties", "patternProperties", "propertyNames", "minProperties", *_CHOICES}
)
_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_SCHEMAS_IN_ORDER = ("prefixItems", "items", *_CHOICES)
_SCHEMA = ("items", "additionalProperties", "additionalItems", "contains", "propertyNames")


def close_objects(schema: dict[str, Any]) -> bool:
    """Adds `additionalProperties: false` to the objects that name properties and leave open whether
    there are others. Returns whether any was added.

    Schemas that put what holds of an object together from several places stay as they are.
    """
    schemas = list(_within(schema))
    if any(_combines(each) for each in schemas):
        return False
    open_ones = [each for each in schemas if _is_open(each)]
    for each in open_ones:
        each["additionalProperties"] = False
    return bool(open_ones)


def _within(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and all schemas in it; not what stands in an enum, a default or an example."""
    waiting: list[Any] = [schema]
    while waiting:
        each = waiting.pop()
        if not isinstance(each, dict):
            continue
        yield each
        for key in _SCHEMAS_BY_NAME:
            named = each.get(key)
            if isinstance(named, dict):
                waiting += named.values()
        for key in _SCHEMAS_IN_ORDER:
            listed = each.get(key)
            if isinstance(listed, list):
                waiting += listed
        waiting += [each.get(key) for key in _SCHEMA]


def _combines(schema: dict[str, Any]) -> bool:
    """Whether the schema adds to what it refers to, or to what it chooses from."""
    if schema.keys() & _COMBINING:
        return True
    all_of = schema.get("allOf")
    if isinstance(all_of, list) and len(all_of) > 1:
        return True
    says_more = bool(schema.keys() & {"properties", "required"})
    return says_more and bool(schema.keys() & {"$ref", *_CHOICES})


def _is_open(schema: dict[str, Any]) -> bool:
    properties, required = schema.get("properties"), schema.get("required", [])
    return (
        isinstance(properties, dict)
        and isinstance(required, list)
        and not schema.keys() & _OPENING
        and all(isinstance(name, str) and name in properties for name in required)
    )
