"""Reads a text that is still coming, with code that looks as if it were all there.

A parser is a generator that yields where it needs more text. It decides by nothing but the text
and its own place in it, and says what it can as soon as it can: so what has been emitted does not
depend on how the text was cut.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import TypeAlias, TypeVar

from services.worker.chat_formats.base import Content, Delta, Reasoning, ToolCallArguments
from services.worker.chat_formats.markers import Markers

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]

_SPACE = re.compile(r"\s*")


class EndedError(Exception):
    """The output is over, and more of it was needed."""


class IncrementalParser(ABC):
    """The text fed, a place in it, and what is emitted. Families say how it is read."""

    is_reasoning = False

    def __init__(self) -> None:
        self._text = ""
        """From behind what was emitted last."""
        self._at = 0
        """What is read next, in `_text`."""
        self._is_over = False
        self._is_cut = False
        self._deltas: list[Delta] = []
        self._steps = self._read()
        self._resume()

    def feed(self, text: str) -> Sequence[Delta]:
        """See OutputParser."""
        self._text += text
        return self._resume()

    def finish(self, *, is_cut: bool = True) -> Sequence[Delta]:
        """See OutputParser."""
        self._is_over = True
        self._is_cut = is_cut
        return self._resume()

    @abstractmethod
    def _read(self) -> Steps[None]:
        """Reads a whole output. May end with EndedError wherever nothing is left to tell."""

    def _resume(self) -> Sequence[Delta]:
        # What was being read when the output ended stays unsaid: it is half of something.
        with suppress(EndedError):
            next(self._steps, None)
        deltas, self._deltas = self._deltas, []
        return deltas

    def _emit(self, delta: Delta) -> None:
        """Tells of what has been read. Neighbours of one kind become one."""
        self._text = self._text[self._at :]
        self._at = 0
        last = self._deltas[-1] if self._deltas else None
        match last, delta:
            case Content(), Content():
                self._deltas[-1] = Content(last.text + delta.text)
            case Reasoning(), Reasoning():
                self._deltas[-1] = Reasoning(last.text + delta.text)
            case ToolCallArguments(), ToolCallArguments() if last.call_index == delta.call_index:
                self._deltas[-1] = ToolCallArguments(last.call_index, last.text + delta.text)
            case _:
                self._deltas.append(delta)

    def _more(self) -> Steps[None]:
        """Waits for more text.

        Raises:
            EndedError: there will be none.
        """
        if self._is_over:
            raise EndedError
        yield

    def _next(self) -> Steps[str]:
        """The next character, which stays unread."""
        while self._at >= len(self._text):
            yield from self._more()
        return self._text[self._at]

    def _past_space(self) -> Steps[str]:
        """Reads white space. Returns the character after it, which stays unread."""
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None
            self._at = space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            yield from self._more()

    def _matched(self, pattern: re.Pattern[str]) -> Steps[str]:
        """Reads a run of characters of one kind, up to the first that is of another."""
        begin = end = self._at
        while True:
            found = pattern.match(self._text, end)
            end = found.end() if found else end
            if end < len(self._text):
                self._at = end
                return self._text[begin:end]
            yield from self._more()

    def _up_to(self, markers: Markers) -> Steps[str]:
        """Reads up to the first of these, and it. Returns what stands before it."""
        begin = scanned = self._at
        while not (found := markers.search(self._text, scanned)):
            scanned = markers.partial_from(self._text, scanned)
            yield from self._more()
        self._at = found.end()
        return self._text[begin : found.start()]

    def _accept(self, *texts: str) -> Steps[str]:
        """Reads the longest of these that comes next. Empty where none does."""
        while True:
            rest = self._text[self._at : self._at + max(map(len, texts))]
            if not any(len(each) > len(rest) and each.startswith(rest) for each in texts):
                found = max((each for each in texts if rest.startswith(each)), key=len, default="")
                self._at += len(found)
                return found
            yield from self._more()
