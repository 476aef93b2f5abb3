"""DeepSeek V3, R1 and V3.1: calls between tokens of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.worker.chat_formats.base import Tool, ToolUse
from services.worker.chat_formats.calling import BrokenCallError, NoCallError
from services.worker.chat_formats.family import SegmentFamily, arguments_form, several
from services.worker.chat_formats.incremental import Steps
from services.worker.chat_formats.json_calls import CallSoFar, JsonCallParser
from services.worker.engines.forms import Form, InOrder, Literal, Marker, OneOf

CALLS_BEGIN = "<｜tool▁calls▁begin｜>"
CALLS_END = "<｜tool▁calls▁end｜>"
CALL_BEGIN = "<｜tool▁call▁begin｜>"
CALL_END = "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"

_NAME = re.compile(r"[\w.-]*")
_FENCE = re.compile(r"[`a-z]*")


class _Parser(JsonCallParser):
    def _read_calls(self, marker: str) -> Steps[None]:
        is_first = marker == CALLS_BEGIN
        if marker == CALL_BEGIN:
            yield from self._read_call()
        while True:
            yield from self._past_space()
            begin = self._at
            if not (yield from self._accept(CALL_BEGIN)):
                break
            if not is_first:
                self._call_begin, self._call_scan = begin, len(CALL_BEGIN)
            is_first = False
            yield from self._read_call()
        if is_first:
            raise NoCallError
        yield from self._close()

    def _read_call(self) -> Steps[None]:
        yield from self._past_space()
        name = yield from self._matched(_NAME)
        if not (yield from self._accept(SEPARATOR)):
            raise NoCallError
        first = yield from self._past_space()
        if first != "{":
            # What came before the separator is the type of the tool.
            name = yield from self._matched(_NAME)
            yield from self._past_space()
            yield from self._matched(_FENCE)
            first = yield from self._past_space()
        self._start_call(name)
        call = CallSoFar(is_started=True, has_arguments=True)
        if first != "{":
            raise BrokenCallError
        yield from self._read_arguments(call, first)
        self._end_call(call)
        yield from self._past_space()
        yield from self._matched(_FENCE)
        yield from self._past_space()
        yield from self._accept(CALL_END)


@dataclass(frozen=True)
class DeepSeek(SegmentFamily):
    """Both ways are read: V3's, with a type and a code fence, and V3.1's, without."""

    call_markers = (CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_END, SEPARATOR)
    call_openings = (CALLS_BEGIN, CALL_BEGIN)
    call_endings = (CALLS_END,)
    segment_parser = _Parser

    has_fence: bool = False
    """Whether calls are forced in V3's way."""

    def calls_form(self, tool_use: ToolUse) -> Form:
        """See Family."""
        call = OneOf(tuple(self._call(tool, tool_use) for tool in tool_use.tools))
        separator = Literal("\n") if self.has_fence else None
        calls = several(call, tool_use, separator=separator)
        return InOrder((Marker(CALLS_BEGIN), calls, Marker(CALLS_END)))

    def _call(self, tool: Tool, tool_use: ToolUse) -> Form:
        arguments = arguments_form(tool, tool_use)
        parts: tuple[Form, ...]
        if not self.has_fence:
            parts = (Literal(tool.name), Marker(SEPARATOR), arguments)
        else:
            parts = (
                Literal("function"),
                Marker(SEPARATOR),
                Literal(f"{tool.name}\n```json\n"),
                arguments,
                Literal("\n```"),
            )
        return InOrder((Marker(CALL_BEGIN), *parts, Marker(CALL_END)))
