"""Granite 3 and Phi 4: a marker, then a JSON array of calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from services.worker.chat_formats.base import OutputParser, Tool, ToolUse
from services.worker.chat_formats.family import Family, arguments_form, several
from services.worker.chat_formats.incremental import Steps
from services.worker.chat_formats.json_calls import JsonCallParser
from services.worker.chat_formats.written_calls import json_call
from services.worker.engines.forms import Form, InOrder, Literal, Marker, OneOf


@dataclass(frozen=True)
class CallList(Family):
    """All calls in one array, or each in an object behind a marker of its own."""

    opening: str = "<|tool_call|>"
    closing: str = ""
    """Empty where the family closes it by nothing."""

    @property
    def call_markers(self) -> tuple[str, ...]:
        """See Family."""
        return (self.opening, self.closing) if self.closing else (self.opening,)

    @property
    def call_openings(self) -> tuple[str, ...]:
        """See Family."""
        return (self.opening,)

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        """See ChatFormat."""
        listed = ", ".join(json_call(*call) for call in calls)
        return f"{self.opening}[{listed}]{self.closing}"

    def parser(self, prompt_end: str, tool_use: ToolUse) -> OutputParser:
        """See ChatFormat."""
        return _Parser(
            prompt_end,
            tool_use,
            reasoning=self.reasoning,
            call_markers=self.call_openings,
            call_endings=(self.closing,) if self.closing else (),
        )

    def calls_form(self, tool_use: ToolUse) -> Form:
        """See Family."""
        call = OneOf(tuple(json_call_form(tool, tool_use) for tool in tool_use.tools))
        calls = several(call, tool_use, separator=Literal(", "))
        ending = (Marker(self.closing),) if self.closing else ()
        return InOrder((Marker(self.opening), Literal("["), calls, Literal("]"), *ending))


class _Parser(JsonCallParser):
    def _read_calls(self, marker: str) -> Steps[None]:
        yield from self._read_json_calls()
        yield from self._close()


def json_call_form(tool: Tool, tool_use: ToolUse, *, arguments: str = "arguments") -> Form:
    """A call as a JSON object."""
    return InOrder(
        (
            Literal(f'{{"name": {json.dumps(tool.name)}, "{arguments}": '),
            arguments_form(tool, tool_use),
            Literal("}"),
        )
    )
