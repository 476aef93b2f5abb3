"""Outputs as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.worker.chat_formats.base import Content, Delta, OutputParser, ToolUse
from services.worker.chat_formats.written_calls import tagged_calls
from services.worker.engines.forms import Form


@dataclass(frozen=True)
class Plain:
    """Nothing is parsed: all is content."""

    name: str = "plain"
    can_reason: bool = False
    can_call: bool = False
    describes_tools: bool = False

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        """See ChatFormat."""
        return tagged_calls(calls)

    def markers(self, tool_use: ToolUse) -> frozenset[str]:
        """None."""
        return frozenset()

    def parser(self, prompt_end: str, tool_use: ToolUse) -> OutputParser:
        """See ChatFormat."""
        return _Parser()

    def form(self, prompt_end: str, tool_use: ToolUse, answer: Form | None) -> Form | None:
        """The answer's own."""
        return answer


class _Parser:
    is_reasoning = False

    def feed(self, text: str) -> Sequence[Delta]:
        return (Content(text),) if text else ()

    def finish(self, *, is_cut: bool = True) -> Sequence[Delta]:
        return ()
