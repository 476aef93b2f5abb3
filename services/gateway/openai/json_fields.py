"""Reading fields by type from the free-form JSON of a request, with errors that name the field."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import struct_pb2

from services.gateway.openai.json_order import members
from services.mesh.errors import InvalidRequestError

_KIND_BY_TYPE: dict[type, str] = {
    bool: "a boolean",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
    type(None): "null",
}

MAX_EXACT_INTEGER = 2**53


def plain(value: struct_pb2.Value) -> Any:
    """The Python value of a JSON value. Numbers are floats; what is absent is None."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {name: plain(field) for name, field in members(value.struct_value)}
    if kind == "list_value":
        return [plain(item) for item in value.list_value.values]
    if kind is None or kind == "null_value":
        return None
    return getattr(value, kind)


def with_integers(value: Any) -> Any:
    """The same JSON, with whole numbers as integers: protobuf's Value has floats only. Beyond 2**53
    a float does not tell every integer apart, and stays what it is.
    """
    if isinstance(value, dict):
        return {name: with_integers(field) for name, field in value.items()}
    if isinstance(value, list):
        return [with_integers(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_EXACT_INTEGER:
        return int(value)
    return value


def plain_list(values: Sequence[struct_pb2.Value]) -> list[Any]:
    """The Python values of a list. Envoy makes a list with one null of a null: that is no list."""
    plain_values = [plain(value) for value in values]
    return [] if plain_values == [None] else plain_values


def struct_of(value: Mapping[str, Any]) -> struct_pb2.Struct:
    """An object of JSON as protobuf has it."""
    struct = struct_pb2.Struct()
    struct.update(value)
    return struct


def invalid_type(path: str, wanted: str, got: object) -> InvalidRequestError:
    """The error for a value of the wrong type."""
    return InvalidRequestError(
        f"Invalid type for '{path}': expected {wanted}, but got {_KIND_BY_TYPE[type(got)]}.",
        reason="INVALID_TYPE",
        field=path,
    )


def not_offered(path: str) -> InvalidRequestError:
    """The error for what a documented field may hold, and nothing here does."""
    return InvalidRequestError(
        f"Unsupported parameter: '{path}' is not offered here.",
        reason="UNSUPPORTED_PARAMETER",
        field=path,
    )


def missing(path: str) -> InvalidRequestError:
    """The error for a required field that is absent or null."""
    return InvalidRequestError(
        f"Missing required parameter: '{path}'.", reason="MISSING_REQUIRED_PARAMETER", field=path
    )


def whole_number(path: str, value: object) -> int:
    """An integer that JSON carried as a number.

    Raises:
        InvalidRequestError: it is no number, or has a fraction.
    """
    if not isinstance(value, float) or not value.is_integer():
        wanted = "an integer"
        if isinstance(value, float):
            raise InvalidRequestError(
                f"Invalid type for '{path}': expected {wanted}, but got {value:g}.",
                reason="INVALID_TYPE",
                field=path,
            )
        raise invalid_type(path, wanted, value)
    return int(value)


def decode_base64(path: str, text: str) -> bytes:
    """The bytes that a field holds.

    Raises:
        InvalidRequestError: it holds something else.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequestError(
            f"Invalid '{path}': expected base64-encoded data.", field=path
        ) from None


class JsonObject:
    """An object somewhere in a request, and the path that leads to it.

    Each method reads one field; null is as absent. They raise InvalidRequestError when the value
    has another type.
    """

    def __init__(self, path: str, value: object) -> None:
        """Wraps `value`, which stands at `path`.

        Raises:
            InvalidRequestError: it is no object.
        """
        if not isinstance(value, dict):
            raise invalid_type(path, "an object", value)
        self.path = path
        self._fields: Mapping[str, Any] = value

    def path_of(self, name: str) -> str:
        """The path of one of its fields."""
        return f"{self.path}.{name}" if self.path else name

    def __getitem__(self, name: str) -> Any:
        return self._fields.get(name)

    def string(self, name: str) -> str | None:
        """A string, or None."""
        return self._typed(name, str, "a string")  # type: ignore[no-any-return]

    def required_string(self, name: str) -> str:
        """A string that must be there."""
        value = self.string(name)
        if value is None:
            raise missing(self.path_of(name))
        return value

    def boolean(self, name: str) -> bool | None:
        """True, false, or None."""
        return self._typed(name, bool, "a boolean")  # type: ignore[no-any-return]

    def object(self, name: str) -> JsonObject | None:
        """An object, or None."""
        value = self[name]
        return None if value is None else JsonObject(self.path_of(name), value)

    def required_object(self, name: str) -> JsonObject:
        """An object that must be there."""
        value = self.object(name)
        if value is None:
            raise missing(self.path_of(name))
        return value

    def strings(self, name: str) -> list[str]:
        """A list of strings; empty when absent."""
        path = self.path_of(name)
        values: Sequence[Any] = self._typed(name, list, "a list of strings") or []
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise invalid_type(f"{path}[{index}]", "a string", value)
        return list(values)

    def objects(self, name: str) -> list[JsonObject]:
        """A list of objects; empty when absent."""
        path = self.path_of(name)
        values: Sequence[Any] = self._typed(name, list, "a list of objects") or []
        return [JsonObject(f"{path}[{index}]", value) for index, value in enumerate(values)]

    def as_struct(self, name: str) -> struct_pb2.Struct | None:
        """An object as it is, or None."""
        value = self._typed(name, dict, "an object")
        if value is None:
            return None
        return struct_of(value)

    def one_of(self, name: str, allowed: Sequence[str]) -> str | None:
        """One of some strings, or None."""
        value = self.string(name)
        if value is not None and value not in allowed:
            raise not_one_of(self.path_of(name), allowed, value)
        return value

    def _typed(self, name: str, kind: type, wanted: str) -> Any:
        value = self[name]
        if value is not None and not isinstance(value, kind):
            raise invalid_type(self.path_of(name), wanted, value)
        return value


def not_one_of(path: str, allowed: Sequence[str], value: str) -> InvalidRequestError:
    """The error for a string that is none of those allowed."""
    listed = ", ".join(f"'{each}'" for each in allowed)
    return InvalidRequestError(
        f"Invalid value: '{value}'. Supported values of '{path}' are: {listed}.",
        reason="INVALID_VALUE",
        field=path,
    )
