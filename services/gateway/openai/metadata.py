"""`metadata`: pairs that a client attaches to a request, within OpenAI's limits."""

from __future__ import annotations

from google.protobuf import struct_pb2

from services.gateway.openai.json_fields import invalid_type, plain
from services.mesh.errors import InvalidRequestError

MAX_PAIRS = 16
MAX_KEY_CHARACTERS = 64
MAX_VALUE_CHARACTERS = 512
FIELD = "metadata"


def read_metadata(value: struct_pb2.Value) -> dict[str, str]:
    """The pairs; none when it is absent or null.

    Raises:
        InvalidRequestError: it is no object of strings, or beyond a limit.
    """
    pairs = plain(value)
    if pairs is None:
        return {}
    if not isinstance(pairs, dict):
        raise invalid_type(FIELD, "an object", pairs)
    if len(pairs) > MAX_PAIRS:
        raise _invalid(FIELD, f"{MAX_PAIRS} pairs", f"{len(pairs)}")
    for key, text in pairs.items():
        if len(key) > MAX_KEY_CHARACTERS:
            raise _invalid(FIELD, f"{MAX_KEY_CHARACTERS} characters in a key", f"{len(key)}")
        path = f"{FIELD}.{key}"
        if not isinstance(text, str):
            raise invalid_type(path, "a string", text)
        if len(text) > MAX_VALUE_CHARACTERS:
            raise _invalid(path, f"{MAX_VALUE_CHARACTERS} characters", f"{len(text)}")
    return pairs


def _invalid(path: str, limit: str, found: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Invalid '{path}': expected at most {limit}, but got {found}.", field=path
    )
