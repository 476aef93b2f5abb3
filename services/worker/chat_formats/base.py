"""What a chat format is: the seam between a family's way of writing and the mesh's typed output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from services.worker.engines.forms import Form


class Content(NamedTuple):
    """More of the answer."""

    text: str


class Reasoning(NamedTuple):
    """More of what the model thinks before it answers."""

    text: str


class ToolCallStarted(NamedTuple):
    """The model calls a tool. Calls of an output are counted from 0."""

    call_index: int
    name: str


class ToolCallArguments(NamedTuple):
    """More of the JSON text of a call's arguments."""

    call_index: int
    text: str


Delta: TypeAlias = Content | Reasoning | ToolCallStarted | ToolCallArguments


class OutputParser(Protocol):
    """Reads one output as it comes.

    What it has emitted is a function of the text fed so far, however that was cut: a stream that
    moves to another worker is parsed there from the start, and goes on where it was. What might yet
    turn out to be a marker is held back; what turns out to be half a call never becomes content.
    """

    @property
    def is_reasoning(self) -> bool:
        """Whether what comes next belongs to the reasoning, as far as one can tell."""
        ...

    def feed(self, text: str) -> Sequence[Delta]:
        """Takes more of the output. Returns what it adds."""
        ...

    def finish(self, *, is_cut: bool = True) -> Sequence[Delta]:
        """The output is over. Returns what was held back and is no half call.

        Args:
            is_cut: whether something other than the model ended it: a length, a stop string. What
                may be half a marker then is one; where the model itself ended there, it is text.
        """
        ...


@dataclass(frozen=True)
class Tool:
    """A function that the model may call."""

    name: str
    parameters: str
    """A JSON text: the schema of the arguments. Empty for none."""
    strict: bool = False
    field: str = field(default="prompt.tools", compare=False)
    """Path of the request's field that holds the parameters."""


@dataclass(frozen=True)
class ToolUse:
    """Which tools an output may, or must, call."""

    tools: tuple[Tool, ...] = ()
    """Those that may be called here: with a named choice, the one."""
    is_required: bool = False
    is_parallel: bool = True
    """Whether several calls may be made."""
    is_named: bool = False
    """Whether the request names the one tool that must be called."""


class ChatFormat(Protocol):
    """One family's way of writing. Stateless."""

    @property
    def name(self) -> str:
        """As `names.by_name` and `--chat-format` take it."""
        ...

    @property
    def can_reason(self) -> bool:
        """Whether the family writes reasoning apart from the answer."""
        ...

    @property
    def can_call(self) -> bool:
        """Whether calls are found in its outputs."""
        ...

    @property
    def describes_tools(self) -> bool:
        """Whether tools are told in a system message of ours, as the template has no place."""
        ...

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        """Calls as the family writes them, for templates that have no place for earlier ones.

        Args:
            calls: name and JSON text of the arguments of each.
        """
        ...

    def markers(self, tool_use: ToolUse) -> frozenset[str]:
        """Special tokens whose texts the parser needs to see; all others stay hidden.

        Those of calls are among them only where there are tools.
        """
        ...

    def parser(self, prompt_end: str, tool_use: ToolUse) -> OutputParser:
        """A parser for an output.

        Args:
            prompt_end: how the rendered prompt ends, or all of it: some templates open the
                reasoning, or close it, or begin a call, themselves.
            tool_use: what may be called. Without tools, nothing is parsed as a call.
        """
        ...

    def form(self, prompt_end: str, tool_use: ToolUse, answer: Form | None) -> Form | None:
        """The form of a whole output: reasoning where the family writes it, then the calls that
        must be made, or the answer in its own form. None where anything goes.

        Args:
            answer: the form that the request asks of the answer, if any.
        """
        ...
