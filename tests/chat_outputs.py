"""What a client makes of the deltas of an output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.worker.chat_formats.base import (
    Content,
    Delta,
    OutputParser,
    Reasoning,
    ToolCallArguments,
    ToolCallStarted,
)


@dataclass
class Output:
    """Content, reasoning, and names and arguments of calls."""

    content: str = ""
    reasoning: str = ""
    calls: list[list[str]] = field(default_factory=list)

    def take(self, deltas: Iterable[Delta]) -> Output:
        for delta in deltas:
            match delta:
                case Content(text):
                    self.content += text
                case Reasoning(text):
                    self.reasoning += text
                case ToolCallStarted(call_index, name):
                    assert call_index == len(self.calls)
                    self.calls.append([name, ""])
                case ToolCallArguments(call_index, text):
                    assert call_index == len(self.calls) - 1
                    self.calls[-1][1] += text
        return self

    def read(self, parser: OutputParser, pieces: Iterable[str], *, is_cut: bool = False) -> Output:
        """The whole output, in pieces."""
        for piece in pieces:
            self.take(parser.feed(piece))
        return self.take(parser.finish(is_cut=is_cut))
