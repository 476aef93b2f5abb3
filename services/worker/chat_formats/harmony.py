"""gpt-oss: an output is several messages, each on a channel, some to a tool."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from services.worker.chat_formats.base import Content, OutputParser, Reasoning, Tool, ToolUse
from services.worker.chat_formats.calling import CallingParser, NoCallError
from services.worker.chat_formats.family import Family, arguments_form
from services.worker.chat_formats.incremental import EndedError, Steps
from services.worker.chat_formats.json_calls import NO_ARGUMENTS
from services.worker.chat_formats.markers import Markers
from services.worker.engines.forms import AnyText, Form, InOrder, Literal, Marker, OneOf

START = "<|start|>"
CHANNEL = "<|channel|>"
MESSAGE = "<|message|>"
CONSTRAIN = "<|constrain|>"
END = "<|end|>"
CALL = "<|call|>"
RETURN = "<|return|>"

_NAMESPACE = "functions."
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_ANALYSIS = re.compile(re.escape(CHANNEL) + r"\s*analysis\b")
_HEADER_ENDS = Markers([MESSAGE])
_BODY_ENDS = Markers([END, CALL, RETURN, START, CHANNEL])


@dataclass(frozen=True)
class Harmony(Family):
    """Reasoning on the channel "analysis", calls to "functions.…", and all else is content."""

    call_markers = (START, CHANNEL, MESSAGE, CONSTRAIN, END, CALL, RETURN)
    call_openings = (CHANNEL,)

    @property
    def can_reason(self) -> bool:
        """See ChatFormat."""
        return True

    def markers(self, tool_use: ToolUse) -> frozenset[str]:
        """See ChatFormat. Channels are there without tools, too."""
        return frozenset(self.call_markers)

    def parser(self, prompt_end: str, tool_use: ToolUse) -> OutputParser:
        """See ChatFormat."""
        return _Parser(prompt_end, tool_use)

    def form(self, prompt_end: str, tool_use: ToolUse, answer: Form | None) -> Form | None:
        """See ChatFormat."""
        if answer is None and not self._forces(tool_use):
            return None
        final = answer or AnyText(without=self.call_markers)
        last: Form = InOrder((Marker(CHANNEL), Literal("final"), Marker(MESSAGE), final))
        if tool_use.tools:
            calls = self.calls_form(tool_use)
            last = calls if tool_use.is_required else OneOf((last, calls))
        analysis = InOrder(
            (
                Marker(CHANNEL),
                Literal("analysis"),
                Marker(MESSAGE),
                AnyText(without=self.call_markers),
                Marker(END),
                Marker(START),
                Literal("assistant"),
            )
        )
        return InOrder((OneOf((Literal(""), analysis)), last))

    def calls_form(self, tool_use: ToolUse) -> Form:
        """One call: a model of this family stops behind it."""
        return OneOf(tuple(_call(tool, tool_use) for tool in tool_use.tools))

    def _forces(self, tool_use: ToolUse) -> bool:
        return tool_use.is_required or any(tool.strict for tool in tool_use.tools)


class _Parser(CallingParser):
    def __init__(self, prompt_end: str, tool_use: ToolUse) -> None:
        _, _, begun = prompt_end.rpartition(START)
        self._header, _, _ = begun.partition(MESSAGE)
        self._is_in_message = MESSAGE in begun and not _BODY_ENDS.search(
            begun, begun.index(MESSAGE)
        )
        self._has_said = {Content: False, Reasoning: False}
        super().__init__(tool_use)

    def _read(self) -> Steps[None]:
        if not self._is_in_message:
            yield from self._read_header()
        while True:
            yield from self._read_message(self._header)
            self.is_reasoning = False
            yield from self._read_header()

    def _read_header(self) -> Steps[None]:
        """Reads up to where a message's text begins. What begins like none is text itself."""
        self._header = ""
        yield from self._past_space()
        begin = self._at
        opening = yield from self._accept(START, CHANNEL, CONSTRAIN, MESSAGE, "to=")
        if not opening:
            return
        if opening != MESSAGE:
            yield from self._up_to(_HEADER_ENDS)
        self._header = self._text[begin : self._at]

    def _read_message(self, header: str) -> Steps[None]:
        recipient = _RECIPIENT.search(header)
        if recipient:
            try:
                self._start_call(recipient[1].removeprefix(_NAMESPACE))
            except NoCallError:
                pass
            else:
                yield from self._read_arguments()
                return
        kind = Reasoning if _ANALYSIS.search(header) else Content
        self.is_reasoning = kind is Reasoning
        # Several messages are paragraphs of one text.
        between = "\n\n" if self._has_said[kind] else ""
        yield from self._past_space()

        def say(text: str) -> None:
            nonlocal between
            self._emit(kind(between + text))
            self._has_said[kind] = True
            between = ""

        yield from self._read_body(say)

    def _read_arguments(self) -> Steps[None]:
        has_said = False

        def say(text: str) -> None:
            nonlocal has_said
            has_said = True
            self._say_arguments(text)

        yield from self._past_space()
        yield from self._read_body(say)
        if not has_said:
            self._say_arguments(NO_ARGUMENTS)

    def _read_body(self, say: Callable[[str], None]) -> Steps[None]:
        """Reads a message's text, and its end, if it has one."""
        while True:
            found = _BODY_ENDS.search(self._text, self._at)
            end = found.start() if found else _BODY_ENDS.partial_from(self._text, self._at)
            text = self._text[self._at : end].rstrip()
            if text:
                self._at += len(text)
                say(text)
            elif found:
                # What begins the next message is read with it.
                self._at = found.start() if found.group() in (START, CHANNEL) else found.end()
                return
            else:
                try:
                    yield from self._more()
                except EndedError:
                    if rest := self._rest(_BODY_ENDS):
                        say(rest)
                    raise


def _call(tool: Tool, tool_use: ToolUse) -> Form:
    return InOrder(
        (
            Marker(CHANNEL),
            Literal(f"commentary to={_NAMESPACE}{tool.name} "),
            Marker(CONSTRAIN),
            Literal("json"),
            Marker(MESSAGE),
            arguments_form(tool, tool_use),
        )
    )
