"""What formats that write each argument for itself ask of a tool's schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from services.worker.chat_formats.base import Tool
from services.worker.engines.forms import Form, Json

_DEFINITIONS = ("$defs", "definitions")


def parameter_schemas(tool: Tool) -> dict[str, Mapping[str, Any]]:
    """The schemas of a tool's parameters, with the definitions that they may refer to."""
    whole = _schema(tool)
    properties = whole.get("properties")
    if not isinstance(properties, dict):
        return {}
    shared = {name: whole[name] for name in _DEFINITIONS if name in whole}
    return {
        key: {**schema, **shared} if isinstance(schema, dict) else shared
        for key, schema in properties.items()
    }


def required_parameters(tool: Tool) -> frozenset[str]:
    """Names of the parameters without which there is no call."""
    required = _schema(tool).get("required")
    return frozenset(required) if isinstance(required, list) else frozenset()


def is_string(schema: Mapping[str, Any] | None) -> bool:
    """Whether a value can be nothing but a string."""
    if schema is None:
        return False
    if schema.get("type") == "string":
        return True
    choices = schema.get("enum")
    return isinstance(choices, list) and all(isinstance(each, str) for each in choices)


def text_value(text: str, schema: Mapping[str, Any] | None) -> str:
    """A value written as plain text, as JSON. What is no JSON, nor Python's word for it, is a
    string."""
    stripped = text.strip()
    if _may_be_string(schema) and stripped != "null":
        return json.dumps(text, ensure_ascii=False)
    stripped = {"True": "true", "False": "false", "None": "null"}.get(stripped, stripped)
    return stripped if is_json(stripped) else json.dumps(text, ensure_ascii=False)


def is_json(text: str) -> bool:
    """Whether a text is JSON, which has no NaN and no infinity."""
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def property_form(schema: Mapping[str, Any], tool: Tool) -> Form:
    """The form of one of a tool's arguments, in JSON."""
    text = json.dumps(schema, ensure_ascii=False)
    return Json(text, strict=tool.strict, field=tool.field)


def _schema(tool: Tool) -> dict[str, Any]:
    try:
        schema = json.loads(tool.parameters or "{}")
    except (ValueError, RecursionError):
        return {}
    return schema if isinstance(schema, dict) else {}


def _may_be_string(schema: Mapping[str, Any] | None) -> bool:
    kinds = (schema or {}).get("type")
    return isinstance(kinds, list) and "string" in kinds


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
