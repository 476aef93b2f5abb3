"""The ids of responses, and of the items that they are made of."""

from __future__ import annotations

import uuid

RESPONSE = "resp"
MESSAGE = "msg"
REASONING = "rs"
FUNCTION_CALL = "fc"
FUNCTION_CALL_OUTPUT = "fco"
CALL = "call"
"""Of a call itself, by which its output refers to it."""


def new_id(prefix: str) -> str:
    """An id that nobody guesses: whoever knows a response's may read it."""
    return f"{prefix}_{uuid.uuid4().hex}"
