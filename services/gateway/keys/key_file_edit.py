"""Adds a key to the text of a file, or revokes one, and leaves all else as it stands. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import yaml

from services.gateway.keys.hashing import hash_text
from services.gateway.keys.key import Key
from services.gateway.keys.key_file import KeyFileError, read_keys

NEW_FILE = """\
# API keys of TokenMesh: docs/keys.md tells what may stand here. Keys themselves do not.
keys:
"""


def with_key(text: str, key: Key) -> str:
    """The text with one more key, at its end. An empty text is a new file.

    Raises:
        KeyFileError: a field of the key is wrong, the text is no file of keys or has a key of that
            name, or it cannot be added to as it is written.
    """
    alone = NEW_FILE + _block(key, indent=0)
    # Says which of the key's own fields is wrong, if one is.
    read_keys(alone)
    if not text.strip():
        return alone
    known = read_keys(text)
    if any(each.name == key.name for each in known):
        raise KeyFileError(f"a key called {key.name!r} is there already")
    listed = _list_node(text)
    if listed.flow_style:
        end = listed.end_mark.index - 1
        comma = ", " if listed.value else ""
        changed = text[:end].rstrip(" \n") + comma + _json(_fields(key)) + text[end:]
    else:
        line_end = "" if text.endswith("\n") else "\n"
        changed = text + line_end + _block(key, indent=listed.start_mark.column)
    return _checked(changed, (*known, key))


def with_revoked(text: str, name: str) -> str:
    """The text with a key disabled.

    Raises:
        KeyFileError: the text is no file of keys, or has no key of that name.
    """
    known = read_keys(text)
    numbers = [number for number, key in enumerate(known) if key.name == name]
    if not numbers:
        names = ", ".join(key.name for key in known) or "none"
        raise KeyFileError(f"no key is called {name!r}; those that are: {names}")
    (number,) = numbers
    entry = _list_node(text).value[number]
    values = {field.value: value for field, value in entry.value}
    if "disabled" in values:
        start, end = values["disabled"].start_mark.index, values["disabled"].end_mark.index
        changed = text[:start] + "true" + text[end:]
    else:
        # A name and a hash are always there: between the two, whichever comes first.
        second = entry.value[1][0].start_mark
        added = (
            '"disabled": true, ' if entry.flow_style else "disabled: true\n" + " " * second.column
        )
        changed = text[: second.index] + added + text[second.index :]
    revoked = replace(known[number], is_disabled=True)
    return _checked(changed, (*known[:number], revoked, *known[number + 1 :]))


def _list_node(text: str) -> Any:
    """The node of `keys`. The loader in Python counts positions in characters."""
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    return next(value for field, value in root.value if field.value == "keys")


def _checked(changed: str, wanted: tuple[Key, ...]) -> str:
    """The text, if it says what it should: a file may be written in ways that are not foreseen."""
    try:
        found = read_keys(changed)
    except KeyFileError:
        found = ()
    if found != wanted:
        raise KeyFileError("cannot be changed as it is written: edit it by hand")
    return changed


def _block(key: Key, *, indent: int) -> str:
    lines = [f"{name}: {_json(value)}" for name, value in _fields(key).items()]
    dash, blank = " " * indent + "- ", " " * indent + "  "
    return "".join(f"{blank if number else dash}{line}\n" for number, line in enumerate(lines))


def _json(value: object) -> str:
    """JSON that is YAML, too, which has no place for some characters, and takes others for the ends
    of lines.
    """
    return "".join(
        character if character.isprintable() or character > "\uffff" else f"\\u{ord(character):04x}"
        for character in json.dumps(value, ensure_ascii=False)
    )


def _fields(key: Key) -> dict[str, Any]:
    """What is not as it is anyway."""
    limits = key.limits
    fields: dict[str, Any] = {
        "name": key.name,
        "hash": hash_text(key.digest),
        "models": None if key.models == ("*",) else list(key.models),
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "max_concurrent": limits.max_concurrent,
        "weight": None if key.weight == 1 else key.weight,
        "expires": None if key.expires_at_s is None else _instant(key.expires_at_s),
        "disabled": key.is_disabled or None,
        "note": key.note or None,
        "metadata": dict(key.metadata) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
