"""A chat format that is easy to see through: it obeys what services.worker.chat_formats asks.

Reasoning is written as "<think>…</think>", a call as "<tool_call>name {…}</tool_call>".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.worker.chat_formats.base import (
    Content,
    Delta,
    Reasoning,
    ToolCallArguments,
    ToolCallStarted,
    ToolUse,
)
from services.worker.engines.forms import (
    AnyText,
    Form,
    InOrder,
    Json,
    Literal,
    Marker,
    OneOf,
    Repeated,
)

THINK, THOUGHT, CALL, CALLED = "<think>", "</think>", "<tool_call>", "</tool_call>"


class TinyParser:
    """Holds back what may become a marker, a call's name, and a call that is not over in name."""

    def __init__(self, written: TinyFormat, *, is_reasoning: bool, can_call: bool) -> None:
        self._written = written
        self._mode = "reasoning" if is_reasoning else "content"
        self._can_call = can_call
        self._held = ""
        self._calls = 0

    @property
    def is_reasoning(self) -> bool:
        return self._mode == "reasoning"

    def feed(self, text: str) -> list[Delta]:
        self._held += text
        deltas: list[Delta] = []
        while self._step(deltas):
            pass
        return deltas

    def finish(self, *, is_cut: bool = True) -> list[Delta]:
        held, self._held = self._held, ""
        if self._mode == "name":
            return []
        return self._emit(held)

    def _step(self, deltas: list[Delta]) -> bool:
        """Emits what is certain. Returns whether there is more to look at."""
        if self._mode == "name":
            name, space, rest = self._held.partition(" ")
            if not space:
                return False
            deltas.append(ToolCallStarted(self._calls, name))
            self._calls += 1
            self._held, self._mode = rest, "arguments"
            return True
        written = self._written
        calls = {written.call: "name"} if self._can_call else {}
        markers = {
            "reasoning": {written.thought: "content"},
            "arguments": {written.called: "content"},
            "content": {written.think: "reasoning", **calls},
        }[self._mode]
        found = [(at, each) for each in markers if (at := self._held.find(each)) >= 0]
        if found:
            at, marker = min(found)
            deltas += self._emit(self._held[:at])
            self._held, self._mode = self._held[at + len(marker) :], markers[marker]
            return True
        keep = max(
            (
                length
                for each in markers
                for length in range(1, len(each))
                if self._held.endswith(each[:length])
            ),
            default=0,
        )
        sure = len(self._held) - keep
        deltas += self._emit(self._held[:sure])
        self._held = self._held[sure:]
        return False

    def _emit(self, text: str) -> list[Delta]:
        if not text:
            return []
        if self._mode == "reasoning":
            return [Reasoning(text)]
        if self._mode == "arguments":
            return [ToolCallArguments(self._calls - 1, text)]
        return [Content(text)]


@dataclass(frozen=True)
class TinyFormat:
    """See services.worker.chat_formats.base.ChatFormat.

    Other markers may be given: letters, where a model with random weights is to write them.
    """

    think: str = THINK
    thought: str = THOUGHT
    call: str = CALL
    called: str = CALLED
    name: str = "tiny"
    can_reason: bool = True
    can_call: bool = True
    describes_tools: bool = False

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        return "".join(f"{self.call}{name} {text}{self.called}" for name, text in calls)

    def markers(self, tool_use: ToolUse) -> frozenset[str]:
        of_calls = {self.call, self.called} if tool_use.tools else set()
        return frozenset({self.think, self.thought} | of_calls)

    def parser(self, prompt_end: str, tool_use: ToolUse) -> TinyParser:
        return TinyParser(
            self,
            is_reasoning=prompt_end.rstrip().endswith(self.think),
            can_call=bool(tool_use.tools),
        )

    def form(self, prompt_end: str, tool_use: ToolUse, answer: Form | None) -> Form | None:
        if not tool_use.is_required:
            return answer
        calls = tuple(
            InOrder(
                (
                    Marker(self.call),
                    Literal(f"{tool.name} "),
                    Json(tool.parameters) if tool.parameters else Json(),
                    Marker(self.called),
                )
            )
            for tool in tool_use.tools
        )
        forced = Repeated(OneOf(calls), at_least=1, at_most=None if tool_use.is_parallel else 1)
        if prompt_end.rstrip().endswith(self.think):
            return InOrder((AnyText((self.thought,)), Marker(self.thought), forced))
        return forced
