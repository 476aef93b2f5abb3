"""The JSON schemas of messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import descriptor_pb2

from scripts.openapi.additions import Additions, Json
from scripts.openapi.contract import Contract, Message, within_package

Field = descriptor_pb2.FieldDescriptorProto

SCALARS: Mapping[int, Json] = {
    Field.TYPE_STRING: {"type": "string"},
    Field.TYPE_BOOL: {"type": "boolean"},
    Field.TYPE_DOUBLE: {"type": "number"},
    Field.TYPE_INT32: {"type": "integer", "format": "int32"},
    Field.TYPE_INT64: {"type": "integer", "format": "int64"},
}
FREE_FORM: Mapping[str, Json] = {
    ".google.protobuf.Value": {},
    ".google.protobuf.Struct": {"type": "object"},
}
REFUSED = "Refused: no engine of the mesh has such a thing."
REFERENCE = "#/components/schemas/"


class Schemas:
    """Makes components of messages, and collects what they refer to."""

    def __init__(self, contract: Contract, additions: Additions) -> None:
        self._contract = contract
        self._additions = additions
        self.components: dict[str, Json] = {}

    def of_message(self, name: str, *, without: frozenset[str] = frozenset()) -> Json:
        """A reference to the schema of a message, less the fields that are in the route's path."""
        component = name.replace(".", "")
        if component in self._additions.schemas:
            raise SystemExit(f"openapi: docs/openapi/ has a schema of the message {component}")
        if component not in self.components:
            self.components[component] = {}
            self.components[component] = self._object(self._contract.messages[name], without)
        return {"$ref": REFERENCE + component}

    def of_addition(self, name: str) -> Json:
        """A reference to a schema of docs/openapi/."""
        self._include(name)
        return {"$ref": REFERENCE + name}

    def fields_of(self, name: str) -> Iterator[tuple[str, Json, bool]]:
        """The fields of a message: name, schema, whether it is required."""
        message = self._contract.messages[name]
        addition = self._additions.messages.get(name, {})
        required, schemas = addition.get("required", []), addition.get("fields", {})
        refused = addition.get("refused", [])
        unknown = {*required, *schemas, *refused} - {field.name for field in message.fields}
        if unknown:
            raise SystemExit(f"openapi: {name} has no {sorted(unknown)}")
        for field, comment in zip(message.fields, message.comments, strict=True):
            is_required = field.name in required
            if field.name in refused:
                yield field.name, {"description": comment or REFUSED, "type": "null"}, False
                continue
            schema = self._field(name, field, schemas.get(field.name, {}))
            if not is_required:
                schema = _or_null(schema)
            if comment:
                schema = {"description": comment, **schema}
            yield field.name, schema, is_required

    def _object(self, message: Message, without: frozenset[str]) -> Json:
        fields = [each for each in self.fields_of(message.name) if each[0] not in without]
        schema: Json = {"type": "object"}
        if message.comment:
            schema["description"] = message.comment
        schema["properties"] = {name: field for name, field, _ in fields}
        required = [name for name, _, is_required in fields if is_required]
        if required:
            schema["required"] = required
        more = self._additions.messages.get(message.name, {}).get("schema", {})
        self._include_references(more)
        return {**schema, **more}

    def _field(self, message: str, field: Field, addition: Json) -> Json:
        """The field's schema: that of its type, and what is said beyond it."""
        self._include_references(addition)
        if field.type in SCALARS:
            schema = SCALARS[field.type]
        elif field.type_name in FREE_FORM:
            schema = FREE_FORM[field.type_name]
        else:
            schema = self.of_message(within_package(field.type_name))
        is_list = field.label == Field.LABEL_REPEATED
        schema = {**schema, **(addition.get("items", {}) if is_list else addition)}
        if not schema:
            raise SystemExit(f"openapi: say in docs/openapi/ what {message}.{field.name} may hold")
        return {"type": "array", **addition, "items": schema} if is_list else schema

    def _include(self, name: str) -> None:
        """Takes in a schema of docs/openapi/ and all that it refers to."""
        if name not in self.components:
            if name not in self._additions.schemas:
                raise SystemExit(f"openapi: docs/openapi/ has no schema {name}")
            self.components[name] = self._additions.schemas[name]
            self._include_references(self.components[name])

    def _include_references(self, node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "$ref" and isinstance(value, str):
                    self._include(value.removeprefix(REFERENCE))
                else:
                    self._include_references(value)
        elif isinstance(node, list):
            for each in node:
                self._include_references(each)


def _or_null(schema: Json) -> Json:
    """An optional field may be null, which means that it is absent."""
    if not isinstance(schema.get("type"), str):
        return {"anyOf": [schema, {"type": "null"}]}
    known: Json = {**schema, "type": [schema["type"], "null"]}
    if "enum" in known:
        known["enum"] = [*known["enum"], None]
    return known
