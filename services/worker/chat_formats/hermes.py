"""Hermes, Qwen 2.5 and 3, Granite 4 and many others: <tool_call>{"name": …}</tool_call>."""

from __future__ import annotations

import json
from dataclasses import dataclass

from services.worker.chat_formats.base import Tool, ToolUse
from services.worker.chat_formats.calling import NoCallError
from services.worker.chat_formats.family import SegmentFamily, arguments_form, several
from services.worker.chat_formats.incremental import Steps
from services.worker.chat_formats.json_calls import JsonCallParser
from services.worker.chat_formats.written_calls import CALL_CLOSING, CALL_OPENING
from services.worker.engines.forms import Form, InOrder, Literal, Marker, OneOf

OPENING, CLOSING = CALL_OPENING, CALL_CLOSING


class _Parser(JsonCallParser):
    def _read_calls(self, marker: str) -> Steps[None]:
        if (yield from self._past_space()) != "{":
            raise NoCallError
        yield from self._read_json_call()
        # Models write several calls between two tags, and braces too many.
        while (character := (yield from self._past_space())) in "{}":
            if character == "{":
                self._begin_call()
                yield from self._read_json_call()
            else:
                self._at += 1
        yield from self._accept(CLOSING)


@dataclass(frozen=True)
class Hermes(SegmentFamily):
    """Each call between its tags; several one below the other."""

    call_markers = (OPENING, CLOSING)
    call_openings = (OPENING,)
    call_endings = (CLOSING,)
    segment_parser = _Parser

    def calls_form(self, tool_use: ToolUse) -> Form:
        """See Family."""
        call = OneOf(tuple(_call(tool, tool_use) for tool in tool_use.tools))
        return several(call, tool_use, separator=Literal("\n"))


def _call(tool: Tool, tool_use: ToolUse) -> Form:
    return InOrder(
        (
            Marker(OPENING),
            Literal(f'\n{{"name": {json.dumps(tool.name)}, "arguments": '),
            arguments_form(tool, tool_use),
            Literal("}\n"),
            Marker(CLOSING),
        )
    )
