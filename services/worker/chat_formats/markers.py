"""Finding markers in a text that is still coming."""

from __future__ import annotations

import re
from collections.abc import Iterable


class Markers:
    """A few texts to look for. Where two begin at one place, the longer is meant."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(sorted(set(texts), key=len, reverse=True))
        self._first_letters = {each[0] for each in self._texts}
        self._longest = max(map(len, self._texts), default=0)
        self._pattern = re.compile("|".join(map(re.escape, self._texts))) if self._texts else None

    def __bool__(self) -> bool:
        return bool(self._texts)

    def search(self, text: str, start: int) -> re.Match[str] | None:
        """The first of them at or after `start`."""
        return self._pattern.search(text, start) if self._pattern else None

    def partial_from(self, text: str, start: int) -> int:
        """Where the end of the text begins that may yet become a marker: its length if none."""
        found = end = len(text)
        for letter in self._first_letters:
            at = text.find(letter, max(start, end - self._longest + 1))
            while 0 <= at < found:
                tail = text[at:]
                if any(each.startswith(tail) for each in self._texts):
                    found = at
                at = text.find(letter, at + 1)
        return found
