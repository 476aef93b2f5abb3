"""Writes a form as a grammar of llguidance.

Parts of a form that are regular become one terminal where they stand side by side: a terminal is
matched exactly, while between terminals each takes as much as it can.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llguidance import regex_to_lark
from llguidance.gbnf_to_lark import gbnf_to_lark

from services.mesh.errors import InvalidRequestError
from services.worker.engines.forms import (
    AnyText,
    Form,
    Grammar,
    InOrder,
    Json,
    Literal,
    Marker,
    OneOf,
    Regex,
    Repeated,
    nodes,
)
from services.worker.engines.guidance.closing import close_objects
from services.worker.engines.guidance.refusals import MAX_PROPERTIES, field_of

WHITESPACE = r"\x20|\n[\x20\t]{0,32}"
"""What may stand between the parts of a JSON text: a space, or a line break and an indentation.
Without a limit a model could go on with whitespace for ever."""

_ANY = "/(?s:.*)/"
_NOTHING = '""'
# The model chooses the tokens of a text that must come: all ways to spell it are allowed.
_OPTIONS = '%llguidance {"no_forcing": true}'


def write_grammar(form: Form, marker_ids: Mapping[str, int]) -> str:
    """The grammar, as the library takes it.

    Args:
        form: what an output must be.
        marker_ids: texts that are one token of the vocabulary.

    Raises:
        InvalidRequestError: a schema is no JSON object, or a grammar in EBNF is wrong.
    """
    if any(isinstance(each, OneOf) and not each.parts for each in nodes(form)):
        raise InvalidRequestError("there is nothing to choose from", field=field_of(form))
    writer = _Writer(marker_ids)
    start = writer.rule(form)
    lark = "\n".join([_OPTIONS, f"start: {start}", *writer.lines, ""])
    clients = [
        {"name": name, "lark_grammar": text} for name, text in writer.client_grammars.items()
    ]
    return json.dumps({"grammars": [{"name": "form", "lark_grammar": lark}, *clients]})


class _Writer:
    def __init__(self, marker_ids: Mapping[str, int]) -> None:
        self._marker_ids = marker_ids
        self._numbers = itertools.count()
        self.lines: list[str] = []
        self.client_grammars: dict[str, str] = {}

    def rule(self, form: Form) -> str:
        """What stands for a form in the body of a rule. Adds the lines that this takes."""
        terminal = self._terminal(form)
        if terminal is not None:
            return self._named("T", terminal)
        match form:
            case Marker(text):
                body = f"<[{self._marker_ids[text]}]>"
            case Json():
                body = self._named("j", f"%json {_with_options(form)}")
            case Grammar():
                body = f"@{self._client_grammar(form)}"
            case InOrder(parts):
                body = f"({' '.join(self._runs(parts))})"
            case OneOf(parts):
                body = f"({' | '.join(map(self.rule, parts))})"
            case Repeated():
                body = _repeated(form, self.rule)
            case _:
                raise AssertionError(f"{form} is regular")
        return body

    def _runs(self, parts: Iterable[Form]) -> Iterable[str]:
        """The parts in order, those that are regular and side by side as one."""
        for is_regular, run in itertools.groupby(
            parts, lambda part: self._terminal(part) is not None
        ):
            if is_regular:
                yield self.rule(InOrder(tuple(run)))
            else:
                yield from map(self.rule, run)

    def _terminal(self, form: Form) -> str | None:
        """A regular form as the body of a terminal; None for what is not regular."""
        match form:
            case InOrder(parts):
                return self._joined(parts, " ")
            case OneOf(parts):
                return self._joined(parts, " | ")
            case Repeated(part, separator=separator):
                regular = (self._terminal(each) for each in (part, separator) if each is not None)
                if any(each is None for each in regular):
                    return None
                return _repeated(form, lambda each: self._terminal(each) or _NOTHING)
            case Marker(text) if text in self._marker_ids:
                return None
        return _regular_leaf(form)

    def _joined(self, parts: Iterable[Form], by: str) -> str | None:
        terminals = [self._terminal(part) for part in parts]
        if not terminals:
            return _NOTHING
        written = [each for each in terminals if each is not None]
        return f"({by.join(written)})" if len(written) == len(terminals) else None

    def _client_grammar(self, form: Grammar) -> str:
        name = f"client{next(self._numbers)}"
        self.client_grammars[name] = _lark(form)
        return name

    def _named(self, kind: str, body: str) -> str:
        name = f"{kind}{next(self._numbers)}"
        self.lines.append(f"{name}: {body}")
        return name


def _regular_leaf(form: Form) -> str | None:
    match form:
        case AnyText(without):
            return _text_without(without) if without else _ANY
        case Literal(text) | Marker(text):
            return _quoted(text)
        case Regex(pattern):
            return f"/{regex_to_lark(pattern, '')}/"
    return None


def _repeated(form: Repeated, write: Callable[[Form], str]) -> str:
    low, high = form.at_least, form.at_most
    if high == 0:
        return _NOTHING
    part = write(form.part)
    if form.separator is None or high == 1:
        return f"({part}){_times(low, high)}"
    separator = write(form.separator)
    more = _times(max(0, low - 1), None if high is None else high - 1)
    several = f"({part} ({separator} {part}){more})"
    return several if low else f"({several})?"


def _times(low: int, high: int | None) -> str:
    return f"{{{low},{'' if high is None else high}}}"


def _text_without(strings: Iterable[str]) -> str:
    some = " | ".join(map(_quoted, strings))
    return f"({_ANY} & ~({_ANY} ({some}) {_ANY}))"


def _quoted(text: str) -> str:
    return json.dumps(text)


def _lark(form: Grammar) -> str:
    if "::=" not in form.text:
        return form.text
    try:
        return gbnf_to_lark(form.text)
    except Exception as error:
        # The converter raises whatever comes of a wrong grammar, such as an IndexError.
        raise InvalidRequestError(
            f"the grammar is no EBNF that can be read: {error}", field=form.field
        ) from error


def _with_options(form: Json) -> str:
    """The schema's text with the library's options put in, and with its objects closed."""
    options = {"whitespace_pattern": WHITESPACE, "lenient": not form.strict}
    try:
        schema = json.loads(form.schema)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"the schema is no JSON text: {error}", field=form.field
        ) from error
    if schema is True:
        return json.dumps({"x-guidance": options})
    if not isinstance(schema, dict):
        raise InvalidRequestError(
            "the schema allows no value" if schema is False else "the schema is no JSON object",
            field=form.field,
        )
    if "x-guidance" in schema:
        raise InvalidRequestError(
            "the schema's keyword 'x-guidance' is not for a request to set", field=form.field
        )
    count = _most_properties(schema)
    if count > MAX_PROPERTIES:
        raise InvalidRequestError(
            f"an object of the schema has {count} properties: at most {MAX_PROPERTIES} are allowed",
            field=form.field,
        )
    text = json.dumps(schema) if close_objects(schema) else form.schema
    rest = text[text.index("{") + 1 :]
    comma = "," if schema else ""
    return f'{{"x-guidance": {json.dumps(options)}{comma}{rest}'


def _most_properties(schema: dict[str, Any]) -> int:
    most = 0
    waiting: list[Any] = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            most = max(most, len(each))
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return most
