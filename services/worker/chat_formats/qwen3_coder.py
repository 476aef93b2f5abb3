"""Qwen3-Coder and Qwen 3.5: calls in a kind of XML, each argument between tags as plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.worker.chat_formats.base import Tool, ToolUse
from services.worker.chat_formats.calling import BrokenCallError, NoCallError
from services.worker.chat_formats.family import SegmentFamily, several
from services.worker.chat_formats.incremental import Steps
from services.worker.chat_formats.markers import Markers
from services.worker.chat_formats.schemas import (
    is_string,
    parameter_schemas,
    property_form,
    required_parameters,
    text_value,
)
from services.worker.chat_formats.segments import SegmentParser
from services.worker.engines.forms import AnyText, Form, InOrder, Literal, Marker, OneOf

OPENING = "<tool_call>"
CLOSING = "</tool_call>"
FUNCTION = "<function="
FUNCTION_END = "</function>"
PARAMETER = "<parameter="
PARAMETER_END = "</parameter>"

_NAME_END = Markers([">"])
_PARAMETER_ENDS = Markers([PARAMETER_END, "\n" + PARAMETER_END])


class _Parser(SegmentParser):
    def _read_calls(self, marker: str) -> Steps[None]:
        if marker == OPENING:
            yield from self._past_space()
            if not (yield from self._accept(FUNCTION)):
                raise NoCallError
        yield from self._read_function()
        yield from self._past_space()
        begin = self._at
        while (yield from self._accept(FUNCTION)):
            self._call_begin, self._call_scan = begin, len(FUNCTION)
            yield from self._read_function()
            yield from self._past_space()
            begin = self._at
        yield from self._close()

    def _read_function(self) -> Steps[None]:
        name = yield from self._read_name()
        self._start_call(name)
        schemas = parameter_schemas(self._tools[name])
        self._say_arguments("{")
        separator = ""
        while True:
            yield from self._past_space()
            tag = yield from self._accept(PARAMETER, FUNCTION_END)
            if tag != PARAMETER:
                break
            key = yield from self._read_name()
            self._say_arguments(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
            separator = ", "
            yield from self._read_value(schemas.get(key))
        self._say_arguments("}")
        if not tag:
            raise BrokenCallError

    def _read_name(self) -> Steps[str]:
        """A name up to its bracket."""
        name = yield from self._up_to(_NAME_END)
        return name.strip()

    def _read_value(self, schema: Mapping[str, Any] | None) -> Steps[None]:
        if (yield from self._next()) == "\n":
            self._at += 1
        if is_string(schema):
            self._say_arguments('"')
            yield from self._read_text()
            self._say_arguments('"')
            return
        text = yield from self._up_to(_PARAMETER_ENDS)
        self._say_arguments(text_value(text, schema))

    def _read_text(self) -> Steps[None]:
        """The text of a string, said as it comes."""
        while True:
            found = _PARAMETER_ENDS.search(self._text, self._at)
            end = found.start() if found else _PARAMETER_ENDS.partial_from(self._text, self._at)
            text = self._text[self._at : end]
            self._at = end
            self._say_arguments(json.dumps(text, ensure_ascii=False)[1:-1])
            if found:
                # What was said is no longer before it.
                yield from self._accept(PARAMETER_END, "\n" + PARAMETER_END)
                return
            yield from self._more()


@dataclass(frozen=True)
class Qwen3Coder(SegmentFamily):
    """Arguments come out as JSON: texts as strings where the schema says so, else what they say."""

    call_markers = (OPENING, CLOSING)
    call_openings = (OPENING, FUNCTION)
    call_endings = (CLOSING,)
    segment_parser = _Parser

    def calls_form(self, tool_use: ToolUse) -> Form:
        """See Family."""
        call = OneOf(tuple(_call(tool) for tool in tool_use.tools))
        return several(call, tool_use, separator=Literal("\n"))


def _call(tool: Tool) -> Form:
    parameters = []
    required = required_parameters(tool)
    for key, schema in parameter_schemas(tool).items():
        parameter = InOrder(
            (Literal(f"{PARAMETER}{key}>\n"), _value(schema, tool), Literal(f"\n{PARAMETER_END}\n"))
        )
        parameters.append(parameter if key in required else OneOf((Literal(""), parameter)))
    return InOrder(
        (
            Marker(OPENING),
            Literal(f"\n{FUNCTION}{tool.name}>\n"),
            *parameters,
            Literal(f"{FUNCTION_END}\n"),
            Marker(CLOSING),
        )
    )


def _value(schema: Mapping[str, Any], tool: Tool) -> Form:
    if not is_string(schema):
        return property_form(schema, tool)
    if "enum" in schema:
        return OneOf(tuple(Literal(each) for each in schema["enum"]))
    return AnyText(without=("\n" + PARAMETER_END, PARAMETER_END))
