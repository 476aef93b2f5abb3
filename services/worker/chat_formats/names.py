"""The chat formats by name."""

from __future__ import annotations

from services.mesh.errors import StartError
from services.worker.chat_formats.base import ChatFormat
from services.worker.chat_formats.generic import Generic
from services.worker.chat_formats.hermes import Hermes
from services.worker.chat_formats.plain import Plain
from services.worker.chat_formats.reasoning import THINK

_FORMATS: dict[str, ChatFormat] = {
    each.name: each
    for each in (
        Hermes("hermes"),
        Hermes("qwen3", THINK),
        Generic("generic"),
        Generic("think", THINK),
        Plain(),
    )
}
NAMES = tuple(_FORMATS)
AUTO = "auto"
"""In place of a name: as the chat template tells."""


def check_name(name: str) -> None:
    """Checks a name that may be AUTO.

    Raises:
        StartError: as `by_name`.
    """
    if name != AUTO:
        by_name(name)


def by_name(name: str) -> ChatFormat:
    """A format.

    Raises:
        StartError: there is none of this name.
    """
    if name not in _FORMATS:
        raise StartError(f"unknown chat format {name!r}: choose from {', '.join((AUTO, *NAMES))}")
    return _FORMATS[name]
