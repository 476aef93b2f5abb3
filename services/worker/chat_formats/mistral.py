"""Mistral: [TOOL_CALLS], then an array of calls, or a name and its arguments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.worker.chat_formats.base import Tool, ToolUse
from services.worker.chat_formats.call_list import json_call_form
from services.worker.chat_formats.calling import BrokenCallError, NoCallError
from services.worker.chat_formats.family import SegmentFamily, arguments_form, several
from services.worker.chat_formats.incremental import Steps
from services.worker.chat_formats.json_calls import CallSoFar, JsonCallParser
from services.worker.chat_formats.reasoning import ReasoningTags
from services.worker.chat_formats.written_calls import json_call
from services.worker.engines.forms import Form, InOrder, Literal, Marker, OneOf

OPENING = "[TOOL_CALLS]"
ARGUMENTS = "[ARGS]"
CALL_ID = "[CALL_ID]"
THINK = ReasoningTags("[THINK]", "[/THINK]")

_NAME = re.compile(r"[\w.-]*")


class _Parser(JsonCallParser):
    def _read_calls(self, marker: str) -> Steps[None]:
        if (yield from self._past_space()) in "[{":
            yield from self._read_json_calls()
            return
        name = yield from self._matched(_NAME)
        if not name:
            raise NoCallError
        self._start_call(name)
        call = CallSoFar(is_started=True, has_arguments=True)
        if (yield from self._accept(CALL_ID, ARGUMENTS)) == CALL_ID:
            yield from self._matched(_NAME)
            yield from self._accept(ARGUMENTS)
        if (first := (yield from self._past_space())) != "{":
            raise BrokenCallError
        yield from self._read_arguments(call, first)
        self._end_call(call)

    def _leave_call(self) -> Steps[None]:
        """Nothing closes a call: the next one does."""
        yield from self._up_to(self._call_markers)
        self._at -= len(OPENING)


@dataclass(frozen=True)
class Mistral(SegmentFamily):
    """Both ways are read; which one is forced depends on the tokenizer's version."""

    call_markers = (OPENING, ARGUMENTS, CALL_ID)
    call_openings = (OPENING,)
    segment_parser = _Parser

    has_arguments_marker: bool = False
    """Whether a call is a name, [ARGS] and its arguments (from version 11 on)."""

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        """See ChatFormat."""
        if self.has_arguments_marker:
            return "".join(f"{OPENING}{name}{ARGUMENTS}{arguments}" for name, arguments in calls)
        return f"{OPENING}[{', '.join(json_call(*call) for call in calls)}]"

    def calls_form(self, tool_use: ToolUse) -> Form:
        """See Family."""
        if self.has_arguments_marker:
            return several(OneOf(tuple(_call(tool, tool_use) for tool in tool_use.tools)), tool_use)
        call = OneOf(tuple(json_call_form(tool, tool_use) for tool in tool_use.tools))
        calls = several(call, tool_use, separator=Literal(", "))
        return InOrder((Marker(OPENING), Literal(" ["), calls, Literal("]")))


def _call(tool: Tool, tool_use: ToolUse) -> Form:
    return InOrder(
        (
            Marker(OPENING),
            Literal(tool.name),
            Marker(ARGUMENTS),
            arguments_form(tool, tool_use),
        )
    )
