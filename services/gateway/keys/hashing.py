"""What a key looks like, and what is kept of it: never the key itself. Pure.

A key that `new_key` draws has 256 random bits. Nobody can try them all, so one SHA-256 keeps it as
well as a slow hash would, and a request costs one hash and one look-up instead of tens of
milliseconds of a core (docs/adr/0028-api-keys.md).
"""

from __future__ import annotations

import hashlib
import re
import secrets

PREFIX = "tm-"
KEY_BYTES = 32
HASH_PREFIX = "sha256:"
MAX_KEY_CHARACTERS = 512
"""A longer one is wrong, whatever it is."""

MIN_SAFE_CHARACTERS = 24
"""Shorter keys can be guessed from their hash, or by asking."""

SHOWN_CHARACTERS = 4

_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def new_key() -> str:
    """A new key, drawn by the system's source of randomness."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def is_sendable(key: str) -> bool:
    """Whether a header can carry it as it is."""
    return 0 < len(key) <= MAX_KEY_CHARACTERS and all("!" <= letter <= "~" for letter in key)


def digest_of(key: str) -> bytes:
    """The SHA-256 of a key."""
    return hashlib.sha256(key.encode()).digest()


def hash_text(digest: bytes) -> str:
    """The hash as it stands in a file of keys."""
    return HASH_PREFIX + digest.hex()


def read_hash(text: str) -> bytes:
    """The digest in a hash.

    Raises:
        ValueError: it is none. The message does not repeat it: somebody may have put a key there.
    """
    if _HASH.fullmatch(text) is None:
        raise ValueError(
            f"must be {HASH_PREFIX} and 64 hexadecimal digits, as `tokenmesh keys hash` prints it"
        )
    return bytes.fromhex(text.removeprefix(HASH_PREFIX))


def masked(key: str) -> str:
    """A key as it may be shown to who sent it: its end, where that gives nothing away."""
    if len(key) < MIN_SAFE_CHARACTERS:
        return "*" * 8
    return "*" * 8 + key[-SHOWN_CHARACTERS:]
