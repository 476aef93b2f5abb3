"""The form that an output must have, as a tree. Pure: `constraints` says who compiles it.

Requests ask for one of the leaves; chat formats put them together with the markers that a family of
models writes around its reasoning and its tool calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class AnyText:
    """Any text, perhaps empty, in which none of `without` comes."""

    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Literal:
    """Just this text, in whatever tokens."""

    text: str


@dataclass(frozen=True, slots=True)
class Marker:
    """A text that is one token of its own where the vocabulary has it so, and else a literal."""

    text: str


@dataclass(frozen=True, slots=True)
class Json:
    """JSON that a schema accepts, its keys in the schema's order."""

    schema: str = '{"type": "object"}'
    """A JSON text."""


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression that the whole matches."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Grammar:
    """A context-free grammar, as clients write it."""

    text: str


@dataclass(frozen=True, slots=True)
class InOrder:
    """One after the other."""

    parts: tuple[Form, ...]


@dataclass(frozen=True, slots=True)
class OneOf:
    """Any one of them. Not empty."""

    parts: tuple[Form, ...]


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same form several times."""

    part: Form
    at_least: int = 0
    at_most: int | None = None
    separator: Form | None = None


Form: TypeAlias = AnyText | Literal | Marker | Json | Regex | Grammar | InOrder | OneOf | Repeated
