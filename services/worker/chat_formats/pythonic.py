"""Llama 3.2 and 4, where told so: the whole answer is a list of calls, as Python writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.worker.chat_formats.base import Tool, ToolUse
from services.worker.chat_formats.calling import BrokenCallError, NoCallError
from services.worker.chat_formats.family import SegmentFamily, several
from services.worker.chat_formats.incremental import Steps
from services.worker.chat_formats.python_values import PythonValueParser
from services.worker.chat_formats.schemas import (
    parameter_schemas,
    property_form,
    required_parameters,
)
from services.worker.chat_formats.segments import SegmentParser
from services.worker.engines.forms import Form, InOrder, Literal, OneOf, Regex

OPENING = "<|python_start|>"
CLOSING = "<|python_end|>"

_NAME = re.compile(r"[\w.-]*")
_NO_CALL = Regex(r"([^\[\s][\s\S]*)?")
_COMMA = Literal(", ")


class _Parser(SegmentParser, PythonValueParser):
    may_start_with_call = True

    def _read_calls(self, marker: str) -> Steps[None]:
        if (yield from self._past_space()) != "[":
            raise NoCallError
        self._at += 1
        is_first = True
        while (character := (yield from self._past_space())) != "]" or is_first:
            if character == "," and not is_first:
                self._at += 1
                continue
            if not is_first:
                self._begin_call()
            yield from self._read_call()
            is_first = False
        self._at += 1
        yield from self._close()

    def _read_call(self) -> Steps[None]:
        name = yield from self._matched(_NAME)
        if (yield from self._past_space()) != "(":
            raise NoCallError
        self._at += 1
        self._start_call(name)
        self._say_arguments("{")
        separator = ""
        while (character := (yield from self._past_space())) != ")":
            if character == "," and separator:
                self._at += 1
                continue
            key = yield from self._matched(_NAME)
            if not key or (yield from self._past_space()) != "=":
                raise BrokenCallError
            self._at += 1
            self._say_arguments(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
            separator = ", "
            yield from self._read_python_value(self._say_arguments)
        self._at += 1
        self._say_arguments("}")


@dataclass(frozen=True)
class Pythonic(SegmentFamily):
    """[look_up(city="Oslo"), add(a=1, b=2)]

    Nothing marks a call but where it stands: at the output's start, or between two tokens.
    """

    call_markers = (OPENING, CLOSING)
    call_openings = (OPENING,)
    call_endings = (CLOSING,)
    segment_parser = _Parser

    def calls_form(self, tool_use: ToolUse) -> Form:
        """See Family. Arguments are written as JSON, which Python's values are read as, too."""
        call = OneOf(tuple(_call(tool) for tool in tool_use.tools))
        return InOrder((Literal("["), several(call, tool_use, separator=_COMMA), Literal("]")))

    def text_or_calls_form(self, tool_use: ToolUse) -> Form:
        """See Family."""
        return OneOf((self.calls_form(tool_use), _NO_CALL))


def _call(tool: Tool) -> Form:
    required = required_parameters(tool)
    parameters = {
        key: InOrder((Literal(f"{key}="), property_form(schema, tool)))
        for key, schema in parameter_schemas(tool).items()
    }
    first = [form for key, form in parameters.items() if key in required]
    rest = [form for key, form in parameters.items() if key not in required]
    arguments: list[Form] = []
    for form in first:
        arguments += [_COMMA, form] if arguments else [form]
    if first:
        arguments += [_optional(InOrder((_COMMA, form))) for form in rest]
    elif rest:
        arguments.append(OneOf((Literal(""), *(_some(rest[at:]) for at in range(len(rest))))))
    return InOrder((Literal(f"{tool.name}("), *arguments, Literal(")")))


def _some(forms: Sequence[Form]) -> Form:
    """The first, and any of the others."""
    return InOrder((forms[0], *(_optional(InOrder((_COMMA, form))) for form in forms[1:])))


def _optional(form: Form) -> Form:
    return OneOf((Literal(""), form))
