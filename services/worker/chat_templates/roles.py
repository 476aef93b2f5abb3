"""Roles that a template does not know, told by those that it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.worker.chat_templates.traits import TemplateTraits

_BETWEEN = "\n\n"


def with_known_roles(
    messages: Sequence[dict[str, Any]], traits: TemplateTraits
) -> list[dict[str, Any]]:
    """Developers speak as the system where they are not known, and the system, where it is not,
    speaks at the start of the next user's message."""
    if not traits.knows_developer:
        messages = _joined(
            [
                {**each, "role": "system"} if each["role"] == "developer" else each
                for each in messages
            ]
        )
    return list(messages) if traits.takes_system else _without_system(messages)


def with_instructions(messages: Sequence[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The conversation with more for the system to say at its start."""
    if messages and messages[0]["role"] in ("system", "developer"):
        said = _BETWEEN.join(filter(None, (messages[0]["content"], text)))
        return [{**messages[0], "content": said}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _joined(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One system message at the start in place of several: most templates expect no second one."""
    leading = 0
    while leading < len(messages) and messages[leading]["role"] == "system":
        leading += 1
    if leading < 2:
        return list(messages)
    text = _BETWEEN.join(each["content"] for each in messages[:leading])
    return [{"role": "system", "content": text}, *messages[leading:]]


def _without_system(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    known: list[dict[str, Any]] = []
    said: list[str] = []
    for message in messages:
        if message["role"] == "system":
            said.append(message["content"])
        elif said and message["role"] == "user":
            known.append({**message, "content": _BETWEEN.join([*said, message["content"]])})
            said = []
        else:
            if said:
                known.append({"role": "user", "content": _BETWEEN.join(said)})
                said = []
            known.append(message)
    if said:
        known.append({"role": "user", "content": _BETWEEN.join(said)})
    return known
