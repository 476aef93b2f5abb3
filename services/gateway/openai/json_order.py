"""Reads requests so that the keys of free-form JSON keep their order.

google.protobuf.Struct keeps its members in a map, and Python's protobuf forgets the order of a map.
On the wire a map is a list of entries, which Envoy writes in the order of the JSON. So requests are
read by classes that are made of the same descriptors, but for one mark: that of Struct's entries
being a map.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

_pool = descriptor_pool.DescriptorPool()
_known_files: set[str] = set()


def in_order(kind: type[M]) -> type[M]:
    """The class that reads the same bytes as `kind`, and whose Structs keep the order of members.

    It has the fields and the types of `kind`, except that `Struct.fields` is a list of entries with
    `key` and `value`: see `members`. It is no subclass: do not ask for its type.
    """
    _learn(kind.DESCRIPTOR.file)
    descriptor = _pool.FindMessageTypeByName(kind.DESCRIPTOR.full_name)
    return message_factory.GetMessageClass(descriptor)  # type: ignore[return-value]


def members(struct: struct_pb2.Struct) -> Iterable[tuple[str, struct_pb2.Value]]:
    """Names and values, in order where the struct was read by a class of `in_order`."""
    fields = struct.fields
    if isinstance(fields, Mapping):
        return fields.items()
    return ((entry.key, entry.value) for entry in fields)


def _learn(file: Any) -> None:
    if file.name in _known_files:
        return
    _known_files.add(file.name)
    for dependency in file.dependencies:
        _learn(dependency)
    description = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(description)
    if file.name == struct_pb2.DESCRIPTOR.name:
        for message in description.message_type:
            for entry in message.nested_type:
                entry.options.ClearField("map_entry")
    _pool.Add(description)
