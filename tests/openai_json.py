"""JSON bodies as the requests of tokenmesh.openai.v1 that Envoy makes of them, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf import json_format, struct_pb2
from google.protobuf.message import Message

from services.gateway.openai.json_order import in_order

M = TypeVar("M", bound=Message)


def request_of(kind: type[M], body: Mapping[str, Any]) -> M:
    """The request, read by the class that the gateway reads it by."""
    values = {
        field.name: field
        for field in kind.DESCRIPTOR.fields
        if field.message_type is not None
        and field.message_type.full_name == struct_pb2.Value.DESCRIPTOR.full_name
    }
    typed = {name: value for name, value in body.items() if name not in values}
    request = in_order(kind)()
    json_format.ParseDict(typed, request, ignore_unknown_fields=True)
    for name, field in values.items():
        if name not in body:
            continue
        if field.is_repeated:
            listed = body[name] if isinstance(body[name], list) else [body[name]]
            for each in listed:
                write_value(getattr(request, name).add(), each)
        else:
            write_value(getattr(request, name), body[name])
    return request


def write_value(target: Any, value: Any) -> None:
    """Writes JSON into a google.protobuf.Value of a class that keeps order."""
    if value is None:
        target.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, list):
        target.list_value.SetInParent()
        for item in value:
            write_value(target.list_value.values.add(), item)
    else:
        target.struct_value.SetInParent()
        for name, field in value.items():
            entry = target.struct_value.fields.add(key=name)
            entry.value.SetInParent()
            write_value(entry.value, field)
