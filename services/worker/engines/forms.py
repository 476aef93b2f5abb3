"""The form that an output must have, as a tree. Pure: `constraints` says who compiles it.

Requests ask for one of the leaves; chat formats put them together with the markers that a family of
models writes around its reasoning and its tool calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

CONSTRAINT_FIELD = "sampling.constraint"


@dataclass(frozen=True, slots=True)
class AnyText:
    """Any text, perhaps empty, in which none of `without` comes.

    It goes on as long as it can: what follows it is a marker, or begins with one of `without`.
    """

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
    strict: bool = True
    """Whether a schema that cannot be held to in full is refused. Else what cannot be held to is
    passed over."""
    field: str = field(default=f"{CONSTRAINT_FIELD}.json_schema.schema", compare=False)
    """Path of the request's field that asked for it."""


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression that the whole matches, as Python's `re.fullmatch` has it."""

    pattern: str
    field: str = field(default=f"{CONSTRAINT_FIELD}.regex", compare=False)
    """Path of the request's field that asked for it."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """A context-free grammar, as clients write it: in Lark's syntax, or in EBNF as llama.cpp's."""

    text: str
    field: str = field(default=f"{CONSTRAINT_FIELD}.grammar", compare=False)
    """Path of the request's field that asked for it."""


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


def nodes(form: Form) -> Iterator[Form]:
    """A form and all that it is made of."""
    waiting = [form]
    while waiting:
        each = waiting.pop()
        yield each
        match each:
            case InOrder(parts) | OneOf(parts):
                waiting.extend(reversed(parts))
            case Repeated(part, separator=separator):
                waiting.extend([part] if separator is None else [part, separator])


def size_bytes(form: Form) -> int:
    """Bytes of all texts in a form."""
    return sum(_own_bytes(each) for each in nodes(form))


def _own_bytes(form: Form) -> int:
    match form:
        case AnyText(without):
            texts = without
        case Literal(text) | Marker(text) | Json(text) | Regex(text) | Grammar(text):
            texts = (text,)
        case _:
            texts = ()
    return sum(len(text.encode(errors="surrogatepass")) for text in texts)
