"""docs/openapi.yaml for tests: strict where readers are to be lenient."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

Json: TypeAlias = dict[str, Any]

FILE = Path(__file__).resolve().parents[1] / "docs" / "openapi.yaml"
REFERENCE = "#/components/schemas/"


def read_description() -> Json:
    """The file as it stands."""
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
    seen: set[str] = set()
    for _, _, operation in operations(description):
        for response in operation["responses"].values():
            _close(description, response, seen)
    for response in description["components"]["responses"].values():
        _close(description, response, seen)


def _close(description: Json, node: Any, seen: set[str]) -> None:
    if isinstance(node, list):
        for each in node:
            _close(description, each, seen)
    if not isinstance(node, dict):
        return
    if "properties" in node:
        node.setdefault("additionalProperties", False)
    for key, value in node.items():
        if key == "$ref" and value.startswith(REFERENCE) and value not in seen:
            seen.add(value)
            name = value.removeprefix(REFERENCE)
            _close(description, description["components"]["schemas"][name], seen)
        elif key not in {"examples", "example"}:
            _close(description, value, seen)
