"""docs/openapi.yaml for tests: strict where readers are to be lenient."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

Json: TypeAlias = dict[str, Any]

FILE = Path(__file__).resolve().parents[1] / "docs" / "openapi.yaml"
FEW_ITEMS = 3
REFERENCE = "#/components/schemas/"


def read_description() -> Json:
    """The file as it stands, for the caller to change."""
    return copy.deepcopy(_parsed())


@cache
def _parsed() -> Json:
    description: Json = yaml.safe_load(FILE.read_text())
    return description


def operations(description: Json) -> Iterator[tuple[str, str, Json]]:
    """Path, verb and operation of each call."""
    for path, verbs in description["paths"].items():
        for verb, operation in verbs.items():
            yield path, verb, operation


def validator(description: Json, schema: Json) -> Validator:
    """Of a schema that may refer to the description's components."""
    return Draft202012Validator({**schema, "components": description["components"]})


def close_answers(description: Json) -> None:
    """Lets answers have no field that is not described."""
    _close(description, _answers(description))


def trim_requests(description: Json) -> None:
    """Lets requests have no field that is not described, and lists of a few items: little is left
    to draw at random, so that it is drawn quickly.
    """
    schemas = description["components"]["schemas"]
    of_answers = set(_reached(description, _answers(description)))
    bodies = [
        each["requestBody"] for _, _, each in operations(description) if "requestBody" in each
    ]
    for name in set(_reached(description, bodies)) - of_answers:
        _close_one(schemas[name])
        _shorten(schemas[name])


def _answers(description: Json) -> list[Json]:
    shared = list(description["components"]["responses"].values())
    return [*shared, *(operation["responses"] for _, _, operation in operations(description))]


def _reached(description: Json, root: Any) -> Iterator[str]:
    """Names of the schemas that a part refers to, directly or not."""
    schemas = description["components"]["schemas"]
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        for reference in _references(waiting.pop()):
            name = reference.removeprefix(REFERENCE)
            if name in schemas and name not in seen:
                seen.add(name)
                waiting.append(schemas[name])
                yield name


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for each in node:
            yield from _references(each)


def _close(description: Json, root: Any) -> None:
    for name in _reached(description, root):
        _close_one(description["components"]["schemas"][name])


def _close_one(node: Any) -> None:
    if isinstance(node, dict):
        # What is within `anyOf` adds to the fields beside it.
        if "properties" in node and node.get("type") == "object":
            node.setdefault("additionalProperties", False)
        for value in node.values():
            _close_one(value)
    elif isinstance(node, list):
        for each in node:
            _close_one(each)


def _shorten(node: Any) -> None:
    if isinstance(node, dict):
        if "items" in node:
            node["maxItems"] = min(FEW_ITEMS, node.get("maxItems", FEW_ITEMS))
        for value in node.values():
            _shorten(value)
    elif isinstance(node, list):
        for each in node:
            _shorten(each)
