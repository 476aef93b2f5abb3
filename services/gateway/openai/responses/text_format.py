"""`text`: the form that the answer must have."""

from __future__ import annotations

from services.gateway.openai.constraints import schema_text
from services.gateway.openai.json_fields import JsonObject, missing, not_one_of
from services.gateway.openai.responses.items import Item
from tokenmesh.mesh.v1.generation_pb2 import Constraint

_TYPES = ("text", "json_object", "json_schema")
_VERBOSITIES = ("low", "medium", "high")


def read_text(value: object) -> tuple[Constraint | None, Item]:
    """The form that `text.format` asks for, None for free text, and how the response tells of it.

    `text.verbosity` is told again, and no more: nothing that models here understand stands for it.

    Raises:
        InvalidRequestError: it is malformed.
    """
    text = JsonObject("text", {} if value is None else value)
    verbosity = text.one_of("verbosity", _VERBOSITIES) or "medium"
    asked = text.object("format")
    kind = "text" if asked is None else asked.required_string("type")
    if kind not in _TYPES:
        raise not_one_of("text.format.type", _TYPES, kind)
    if asked is None or kind == "text":
        return None, {"format": {"type": "text"}, "verbosity": verbosity}
    if kind == "json_object":
        told: Item = {"type": "json_object"}
        constraint = Constraint(json_object=Constraint.JsonObject())
        return constraint, {"format": told, "verbosity": verbosity}
    if asked["schema"] is None:
        raise missing(asked.path_of("schema"))
    schema = Constraint.JsonSchema(
        name=asked.required_string("name"),
        schema=schema_text(asked.path_of("schema"), asked["schema"]),
        strict=asked.boolean("strict") or False,
    )
    told = {
        "type": "json_schema",
        "description": asked.string("description"),
        "name": schema.name,
        "schema": asked["schema"],
        "strict": schema.strict,
    }
    return Constraint(json_schema=schema), {"format": told, "verbosity": verbosity}
