"""What the families have in common: reasoning first, then an answer, or calls, or both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from services.worker.chat_formats.base import OutputParser, Tool, ToolUse
from services.worker.chat_formats.reasoning import ReasoningTags
from services.worker.chat_formats.segments import SegmentParser
from services.worker.chat_formats.written_calls import tagged_calls
from services.worker.engines.forms import AnyText, Form, InOrder, Json, OneOf, Repeated

NO_PARAMETERS = '{"type": "object", "properties": {}, "additionalProperties": false}'


@dataclass(frozen=True)
class Family(ABC):
    """A ChatFormat. Those that inherit from it name their markers, their parser, their calls."""

    call_markers: ClassVar[tuple[str, ...]]
    """All texts that the family writes around calls, where they are special tokens."""
    call_openings: ClassVar[tuple[str, ...]]
    """Those with which calls begin."""

    name: str
    reasoning: ReasoningTags | None = None

    @property
    def can_reason(self) -> bool:
        """See ChatFormat."""
        return self.reasoning is not None

    @property
    def can_call(self) -> bool:
        """See ChatFormat."""
        return True

    @property
    def describes_tools(self) -> bool:
        """See ChatFormat."""
        return False

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        """See ChatFormat. In tags, unless the family says otherwise."""
        return tagged_calls(calls)

    def markers(self, tool_use: ToolUse) -> frozenset[str]:
        """See ChatFormat."""
        tags = self.reasoning
        return frozenset((tags.opening, tags.closing) if tags else ()).union(
            self.call_markers if tool_use.tools else ()
        )

    def form(self, prompt_end: str, tool_use: ToolUse, answer: Form | None) -> Form | None:
        """See ChatFormat."""
        whole = self._answer_form(tool_use, answer)
        if whole is None or self.reasoning is None:
            return whole
        return InOrder((self.reasoning.form(prompt_end), whole))

    def _answer_form(self, tool_use: ToolUse, answer: Form | None) -> Form | None:
        if not tool_use.tools:
            return answer
        if tool_use.is_required:
            return self.calls_form(tool_use)
        if answer is not None:
            return OneOf((answer, self.calls_form(tool_use)))
        if any(tool.strict for tool in tool_use.tools):
            return self.text_or_calls_form(tool_use)
        return None

    def text_or_calls_form(self, tool_use: ToolUse) -> Form:
        """Any text, in which the calls that may come are whole ones."""
        calls = self.calls_form(tool_use)
        return InOrder((AnyText(without=self.call_openings), Repeated(calls, at_most=1)))

    @abstractmethod
    def parser(self, prompt_end: str, tool_use: ToolUse) -> OutputParser:
        """See ChatFormat."""

    @abstractmethod
    def calls_form(self, tool_use: ToolUse) -> Form:
        """One call or, where that is allowed, several, of whatever tools there are."""


class SegmentFamily(Family):
    """A Family that writes reasoning, and then text with calls between texts of their own."""

    segment_parser: ClassVar[type[SegmentParser]]
    """What reads its calls."""
    call_endings: ClassVar[tuple[str, ...]] = ()
    """What a call that breaks is left by. Empty: the output's end."""

    def parser(self, prompt_end: str, tool_use: ToolUse) -> OutputParser:
        """See ChatFormat."""
        return self.segment_parser(
            prompt_end,
            tool_use,
            reasoning=self.reasoning,
            call_markers=self.call_openings,
            call_endings=self.call_endings,
        )


def arguments_form(tool: Tool, tool_use: ToolUse) -> Form:
    """The arguments of a call. They match the schema where a call is strict, and as far as that can
    be held to where it is forced."""
    if tool.strict or tool_use.is_required:
        return Json(tool.parameters or NO_PARAMETERS, strict=tool.strict, field=tool.field)
    return Json(field=tool.field)


def several(call: Form, tool_use: ToolUse, *, separator: Form | None = None) -> Form:
    """The call once, or more often where that is allowed."""
    return Repeated(
        call, at_least=1, at_most=None if tool_use.is_parallel else 1, separator=separator
    )
