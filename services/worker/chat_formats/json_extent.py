"""Where a JSON value ends that is still coming."""

from __future__ import annotations

import re

_OUTSIDE = re.compile(r"[\s\w:,.+-]*")
_INSIDE = re.compile(r'[^"\\]*')


class JsonExtent:
    """Follows one object, array or string, from its first character on.

    It looks at brackets and quotes alone: what a model writes wrong between them is the model's.
    """

    def __init__(self) -> None:
        self.is_done = False
        self.is_broken = False
        """Whether something came that no JSON has outside of its strings."""
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def take(self, text: str, start: int) -> int:
        """Follows a text from `start` on. Returns where the value ends, or the text does."""
        at = start
        while at < len(text) and not self.is_done:
            if self._is_escaped:
                self._is_escaped = False
                at += 1
            elif self._in_string:
                at = self._inside(text, at)
            else:
                at = self._outside(text, at)
                if self.is_broken:
                    break
        return at

    def _inside(self, text: str, at: int) -> int:
        at = _end(_INSIDE, text, at)
        if at < len(text):
            if text[at] == '"':
                self._in_string = False
                self.is_done = not self._depth
            else:
                self._is_escaped = True
            at += 1
        return at

    def _outside(self, text: str, at: int) -> int:
        at = _end(_OUTSIDE, text, at)
        if at < len(text):
            if text[at] == '"':
                self._in_string = True
            elif text[at] in "{[":
                self._depth += 1
            elif text[at] in "}]":
                self._depth -= 1
                self.is_done = self._depth <= 0
            else:
                self.is_broken = True
                return at
            at += 1
        return at


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None
    return found.end()
