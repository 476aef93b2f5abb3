"""Printing JSON for streams: strings by the C encoder, everything else put together once."""

from __future__ import annotations

import json
from collections.abc import Iterable

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# Characters at which some clients' line splitting would cut an event in two, though only CR and LF
# end a line of a server-sent event.
_LINE_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}

DONE = b"data: [DONE]\n\n"


def quoted(text: str) -> str:
    """The JSON string of a text."""
    return encoded(text)


def encoded(value: object) -> str:
    """The compact JSON of a value, on one line for whoever splits it."""
    text = _encode(value)
    return text if text.isascii() else text.translate(_LINE_BREAKS)


def array(items: Iterable[str]) -> str:
    """A JSON array of items that are JSON already."""
    return f"[{','.join(items)}]"


def event(json_text: str) -> bytes:
    """A server-sent event that carries one JSON value."""
    return f"data: {json_text}\n\n".encode()
