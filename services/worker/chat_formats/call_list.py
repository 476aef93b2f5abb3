"""Granite 3 and Phi 4: a marker, then a JSON array of calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from services.worker.chat_formats.base import Tool, ToolUse
from services.worker.chat_formats.family import SegmentFamily, arguments_form, several
from services.worker.chat_formats.incremental import Steps
from services.worker.chat_formats.json_calls import JsonCallParser
from services.worker.chat_formats.written_calls import json_call
from services.worker.engines.forms import Form, InOrder, Literal, Marker, OneOf

OPENING = "<|tool_call|>"
CLOSING = "<|/tool_call|>"


class _Parser(JsonCallParser):
    def _read_calls(self, marker: str) -> Steps[None]:
        yield from self._read_json_calls()
        yield from self._close()


@dataclass(frozen=True)
class CallList(SegmentFamily):
    """All calls in one array, or each in an object behind a marker of its own."""

    call_markers: ClassVar[tuple[str, ...]] = (OPENING,)
    call_openings = (OPENING,)
    segment_parser = _Parser
    closing: ClassVar[str] = ""
    """Empty where the family closes calls by nothing."""

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        """See ChatFormat."""
        listed = ", ".join(json_call(*call) for call in calls)
        return f"{OPENING}[{listed}]{self.closing}"

    def calls_form(self, tool_use: ToolUse) -> Form:
        """See Family."""
        call = OneOf(tuple(json_call_form(tool, tool_use) for tool in tool_use.tools))
        calls = several(call, tool_use, separator=Literal(", "))
        ending = (Marker(self.closing),) if self.closing else ()
        return InOrder((Marker(OPENING), Literal("["), calls, Literal("]"), *ending))


@dataclass(frozen=True)
class ClosedCallList(CallList):
    """Phi 4: a marker behind the array, too."""

    call_markers = (OPENING, CLOSING)
    call_endings = (CLOSING,)
    closing = CLOSING


def json_call_form(tool: Tool, tool_use: ToolUse, *, arguments: str = "arguments") -> Form:
    """A call as a JSON object."""
    return InOrder(
        (
            Literal(f'{{"name": {json.dumps(tool.name)}, "{arguments}": '),
            arguments_form(tool, tool_use),
            Literal("}"),
        )
    )
