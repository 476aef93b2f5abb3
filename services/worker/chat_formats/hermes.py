"""Hermes, Qwen 2.5 and 3, Granite 4 and many others: <tool_call>{"name": …}</tool_call>."""

from __future__ import annotations

import json
from dataclasses import dataclass

from services.worker.chat_formats.base import OutputParser, Tool, ToolUse
from services.worker.chat_formats.calling import NoCallError
from services.worker.chat_formats.family import Family, arguments_form, several
from services.worker.chat_formats.incremental import Steps
from services.worker.chat_formats.json_calls import JsonCallParser
from services.worker.chat_formats.written_calls import CALL_CLOSING, CALL_OPENING
from services.worker.engines.forms import Form, InOrder, Literal, Marker, OneOf

OPENING, CLOSING = CALL_OPENING, CALL_CLOSING


@dataclass(frozen=True)
class Hermes(Family):
    """Each call between its tags; several one below the other."""

    @property
    def call_markers(self) -> tuple[str, ...]:
        """See Family."""
        return (OPENING, CLOSING)

    @property
    def call_openings(self) -> tuple[str, ...]:
        """See Family."""
        return (OPENING,)

    def parser(self, prompt_end: str, tool_use: ToolUse) -> OutputParser:
        """See ChatFormat."""
        return _Parser(
            prompt_end,
            tool_use,
            reasoning=self.reasoning,
            call_markers=self.call_openings,
            call_endings=(CLOSING,),
        )

    def calls_form(self, tool_use: ToolUse) -> Form:
        """See Family."""
        call = OneOf(tuple(_call(tool, tool_use) for tool in tool_use.tools))
        return several(call, tool_use, separator=Literal("\n"))


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
