"""Where keys come from: the command line, an environment variable, a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import structlog

from services.gateway.keys.hashing import (
    MAX_KEY_CHARACTERS,
    MIN_SAFE_CHARACTERS,
    digest_of,
    is_sendable,
)
from services.gateway.keys.key import Key
from services.gateway.keys.key_file import MAX_FILE_BYTES, KeyFileError, read_keys
from services.mesh.errors import StartError

log = structlog.get_logger()


def keys_of_option(text: str | None) -> tuple[Key, ...]:
    """The keys of --api-keys, as FastChat has it: split by commas, each good for everything. They
    are called key#1, key#2 and so on, which no key of a file may be; what they are is kept nowhere.

    Raises:
        StartError: one is empty, doubled, too long, or holds what no header can carry.
    """
    if text is None or not text.strip():
        return ()
    keys: list[Key] = []
    for number, part in enumerate(text.split(","), start=1):
        given = part.strip()
        if not is_sendable(given):
            raise StartError(
                f"--api-keys: key {number} must be 1 to {MAX_KEY_CHARACTERS} characters of "
                "printable ASCII, without blanks"
            )
        keys.append(Key(_name(number), digest_of(given), is_named=False))
    if len({key.digest for key in keys}) < len(keys):
        raise StartError("--api-keys names a key twice; give each once")
    return tuple(keys)


def warn_of_short_keys(text: str | None) -> None:
    """Logs which of --api-keys can be guessed."""
    for number, given in enumerate((text or "").split(","), start=1):
        if 0 < len(given.strip()) < MIN_SAFE_CHARACTERS:
            log.warning(
                "an API key is short enough to be guessed; 'tokenmesh keys create' draws better",
                key=_name(number),
            )


def _name(number: int) -> str:
    return f"key#{number}"


def read_key_file(path: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        KeyFileError: it cannot be read, is too large, or what it says cannot be.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise KeyFileError(f"has more than {MAX_FILE_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise KeyFileError("is not UTF-8 text") from None
    return read_keys(text)


def first_keys_of_file(path: Path) -> tuple[Key, ...]:
    """The keys of a file at the start.

    Raises:
        StartError: there is no such file, or it cannot be used.
    """
    try:
        return read_key_file(path)
    except KeyFileError as error:
        raise StartError(f"--api-keys-file {path}: {error}") from None


def check_fit(fixed: Sequence[Key], of_file: Sequence[Key]) -> None:
    """Checks that keys of both sources can stand beside each other.

    Raises:
        KeyFileError: a key is in both.
    """
    digests = {key.digest for key in fixed}
    for number, key in enumerate(of_file):
        if key.digest in digests:
            raise KeyFileError(f"keys[{number}].hash is that of a key of --api-keys")
