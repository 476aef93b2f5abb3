"""The ids of tool calls."""

from __future__ import annotations

import hashlib
import string

_ALPHABET = string.digits + string.ascii_letters
_LETTERS = 24


def call_id(request_id: str, seed: int, choice_index: int, call_index: int) -> str:
    """The id of a call: "call_" and 24 letters and digits.

    A pure function, so that a call keeps its id when its request moves to another worker. Two
    requests have different ids as far as they differ in request id or seed.
    """
    text = f"{request_id}\0{seed}\0{choice_index}\0{call_index}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest())
    letters = []
    for _ in range(_LETTERS):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "call_" + "".join(letters)
