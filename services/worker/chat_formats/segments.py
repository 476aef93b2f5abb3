"""Reads outputs that are reasoning, then text with calls in it: all families but a few.

- White space that touches a marker belongs to it: reasoning and content come trimmed there. Where
  content goes on behind a call, the space before it stays.
- Something that begins like a call and is none (a name that no tool has, no JSON, no name) is
  content, as it is written. Once the call has been told of, it stays one: its arguments are what
  the model wrote, and what stands between where they break and the call's end is left out.
- Where an output ends within a call, nothing of the rest is content.
- Where one call is allowed, further ones are read and left out.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from services.worker.chat_formats.base import Content, Reasoning, ToolUse
from services.worker.chat_formats.calling import BrokenCallError, CallingParser, NoCallError
from services.worker.chat_formats.incremental import EndedError, Steps
from services.worker.chat_formats.markers import Markers
from services.worker.chat_formats.reasoning import ReasoningTags


class SegmentParser(CallingParser):
    """Finds reasoning, content and calls.

    Args:
        prompt_end: how the prompt ends.
        tool_use: what may be called.
        reasoning: what the family writes around reasoning, if anything.
        call_markers: what begins a call.
        call_endings: what a call that breaks is left by. Empty: the output's end.
    """

    may_start_with_call = False
    """Whether an answer may begin with a call that nothing marks."""

    def __init__(
        self,
        prompt_end: str,
        tool_use: ToolUse,
        *,
        reasoning: ReasoningTags | None = None,
        call_markers: Iterable[str] = (),
        call_endings: Iterable[str] = (),
    ) -> None:
        self._prompt_end = prompt_end
        self._tags = reasoning
        self._call_markers = Markers(call_markers if tool_use.tools else ())
        self._call_endings = tuple(call_endings)
        self._call_begin = 0
        """Where that begins, in what is pending, which is content if it is no call."""
        self._call_scan = 0
        """How much of it is not to be taken for the beginning of a call again."""
        self._has_content = False
        self._is_behind_marker = False
        """Whether nothing but white space has come since a marker."""
        super().__init__(tool_use)

    @abstractmethod
    def _read_calls(self, marker: str) -> Steps[None]:
        """Reads the call, or the calls, that a marker begins. The marker has been read; it is
        empty at the start of an answer, where a call may begin without one.

        Raises:
            NoCallError: it is no call. What was read since `_begin_call` is content.
            BrokenCallError: it does not go on as one.
        """

    def _read(self) -> Steps[None]:
        yield from self._read_reasoning()
        scan = 0
        if self.may_start_with_call and self._tools:
            self._begin_call()
            scan = yield from self._try_calls("")
        while True:
            marker = yield from self._read_content(scan)
            scan = yield from self._try_calls(marker)

    def _try_calls(self, marker: str) -> Steps[int]:
        """Reads calls. Returns how far from here no other may begin: see `_read_content`."""
        try:
            yield from self._read_calls(marker)
        except NoCallError:
            self._at = self._call_begin
            return self._call_scan
        except BrokenCallError:
            yield from self._leave_call()
        self._is_behind_marker = True
        return 0

    def _read_reasoning(self) -> Steps[None]:
        tags = self._tags
        if tags is None:
            return
        if tags.is_closed_by(self._prompt_end):
            self._is_behind_marker = True
            return
        if not tags.is_opened_by(self._prompt_end) and not (yield from self._opens(tags)):
            return
        self.is_reasoning = True
        closing = Markers([tags.closing])
        is_first = True
        while True:
            found = closing.search(self._text, self._at)
            end = found.start() if found else closing.partial_from(self._text, self._at)
            said = self._text[self._at : end].rstrip()
            if said:
                self._at += len(said)
                self._emit(Reasoning(said.lstrip() if is_first else said))
                is_first = False
            elif found:
                self._at = found.end()
                break
            else:
                try:
                    yield from self._more()
                except EndedError:
                    rest = self._rest(closing)
                    if rest := rest.lstrip() if is_first else rest:
                        self._emit(Reasoning(rest))
                    raise
        self.is_reasoning = False
        self._is_behind_marker = True

    def _opens(self, tags: ReasoningTags) -> Steps[bool]:
        """Whether the output begins with reasoning. If not, nothing has been read."""
        try:
            yield from self._past_space()
            if (yield from self._accept(tags.opening)):
                return True
        except EndedError:
            self._at = 0
            rest = self._rest(Markers([tags.opening]))
            if rest:
                self._emit(Content(rest))
            raise
        self._at = 0
        return False

    def _read_content(self, scan: int) -> Steps[str]:
        """Says content up to the next call marker, which is read and returned.

        Args:
            scan: how far from here to begin to look for markers.
        """
        markers = self._call_markers
        while True:
            start = self._at + scan
            found = markers.search(self._text, start)
            end = found.start() if found else markers.partial_from(self._text, start)
            said = self._text[self._at : end]
            if markers:
                said = said.rstrip()
            if said:
                self._at += len(said)
                scan = max(0, scan - len(said))
                self._say_content(said)
            elif found:
                self._call_begin = self._at
                self._at = found.end()
                self._call_scan = self._at - self._call_begin
                return found.group()
            else:
                try:
                    yield from self._more()
                except EndedError:
                    rest = self._rest(markers)
                    if rest.strip() or not self._is_behind_marker:
                        self._say_content(rest)
                    raise

    def _say_content(self, text: str) -> None:
        if self._is_behind_marker and not self._has_content:
            text = text.lstrip()
        if text:
            self._is_behind_marker = False
            self._has_content = True
            self._emit(Content(text))

    def _begin_call(self) -> None:
        """One more call begins here, without a marker of its own."""
        self._call_begin = self._at
        self._call_scan = 0

    def _close(self) -> Steps[None]:
        """Reads the end of a call, or of calls, where it comes."""
        if self._call_endings:
            yield from self._past_space()
            yield from self._accept(*self._call_endings)

    def _leave_call(self) -> Steps[None]:
        """Reads what a broken call leaves, and the call's end."""
        yield from self._up_to(Markers(self._call_endings))
