"""Messages as nobody means them: any field may be missing, huge, negative, or of no known kind."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

INTEGERS = (0, 1, 2, 3, 20, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, -1, -(2**31), -(2**63))
DOUBLES = (0.0, 1.0, -1.0, 1e-9, 1e308, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "a", "scripted", "{{ 1 / 0 }}", "\x00", "🙂" * 50, "<|end|>", " the" * 100)
GIANT_TEXT = "giant " * 50_000
DEEPEST = 6


def odd(message: Message, draw: random.Random, *, share: float = 0.4) -> Any:
    """The message, with that share of its fields set to odd values."""
    _fill(message, draw, share, 0)
    return message


def odd_frame(kind: type[Message], frames: Sequence[str], draw: random.Random) -> Any:
    """A frame of a stream: mostly one of these kinds, now and then none, or odd altogether."""
    message = kind()
    if draw.random() < 0.1:
        return odd(message, draw)
    if draw.random() < 0.05:
        return message
    name = draw.choice(frames)
    inner = getattr(message, name)
    inner.SetInParent()
    odd(inner, draw, share=draw.choice((0.0, 0.3, 0.8)))
    return message


def _fill(message: Message, draw: random.Random, share: float, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if draw.random() >= share or depth > DEEPEST:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(message, field, draw)
        elif field.is_repeated:
            for _ in range(draw.choice((0, 1, 2, 2, 40) if depth < 2 else (0, 1, 2))):
                if field.message_type is not None:
                    _fill(getattr(message, field.name).add(), draw, share, depth + 1)
                else:
                    _try(lambda value, f=field: getattr(message, f.name).append(value), field, draw)
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            _fill(inner, draw, share, depth + 1)
        else:
            _try(lambda value, f=field: setattr(message, f.name, value), field, draw)


def _fill_map(message: Message, field: Any, draw: random.Random) -> None:
    entry = field.message_type.fields_by_name
    if entry["value"].message_type is not None:
        return
    values = getattr(message, field.name)
    for _ in range(draw.choice((1, 40))):
        _try(
            lambda value: values.__setitem__(_odd_value(entry["key"], draw), value),
            entry["value"],
            draw,
        )


def _try(put: Any, field: Any, draw: random.Random) -> None:
    """Puts an odd value where one of its range fits."""
    while True:
        try:
            put(_odd_value(field, draw))
        except ValueError:
            continue
        return


def _odd_value(field: Any, draw: random.Random) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return b"\xff\x00"
        return GIANT_TEXT if draw.random() < 0.01 else draw.choice(TEXTS)
    if kind in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
        return draw.choice(DOUBLES)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return draw.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return draw.choice((0, 1, 2, 99))
    return draw.choice(INTEGERS)
