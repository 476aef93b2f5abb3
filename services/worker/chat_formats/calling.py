"""What parsers of every family do with a call once they have found it."""

from __future__ import annotations

from services.worker.chat_formats.base import ToolCallArguments, ToolCallStarted, ToolUse
from services.worker.chat_formats.incremental import IncrementalParser
from services.worker.chat_formats.markers import Markers


class NoCallError(Exception):
    """What began like a call is none, and nothing of it has been emitted."""


class BrokenCallError(Exception):
    """A call that has been told of does not go on as one."""


class CallingParser(IncrementalParser):
    """Counts calls, and tells of those that may be."""

    def __init__(self, tool_use: ToolUse) -> None:
        self._tools = {tool.name: tool for tool in tool_use.tools}
        self._is_parallel = tool_use.is_parallel
        self._calls = 0
        self._is_told = True
        super().__init__()

    def _start_call(self, name: str) -> None:
        """Tells of a call.

        Raises:
            NoCallError: no tool has the name.
        """
        if name not in self._tools:
            raise NoCallError
        self._is_told = self._is_parallel or not self._calls
        if self._is_told:
            self._emit(ToolCallStarted(self._calls, name))
        self._calls += 1

    def _say_arguments(self, text: str) -> None:
        if text and self._is_told:
            self._emit(ToolCallArguments(self._calls - 1, text))

    def _rest(self, markers: Markers) -> str:
        """Reads what is left at the end of the output, without half a marker where it was cut."""
        rest = self._text[self._at :]
        if self._is_cut:
            end = markers.partial_from(rest, 0)
            if end < len(rest):
                rest = rest[:end].rstrip()
        self._at = len(self._text)
        return rest
