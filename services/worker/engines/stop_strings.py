"""Finds stop strings in a text that arrives in pieces, and holds back what may become one."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Matches the stop strings of one sequence.

    The match is the one that is complete first, then the longest, whatever the pieces; so a stop
    string is found across token borders, and no character of it is released before.
    """

    def __init__(self, strings: Sequence[str], *, include: bool = False) -> None:
        self._strings = tuple(strings)
        self._include = include
        self._longest = max(map(len, self._strings), default=0)
        self._held = ""

    def feed(self, text: str, *, may_end: bool = True) -> tuple[str, str | None]:
        """Takes the next piece. Returns the text that is safe to release, and the match, if any.

        With `may_end` false nothing matches that ends within this piece.
        """
        if not self._strings:
            return text, None
        text = self._held + text
        matches = [
            (start + len(string), start, string)
            for string in self._strings
            if may_end and (start := text.find(string)) >= 0
        ]
        if matches:
            end, start, string = min(matches)
            self._held = ""
            return text[: end if self._include else start], string
        held = self._possible_start(text)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], None

    def flush(self) -> str:
        """What was held back, once nothing more comes."""
        held, self._held = self._held, ""
        return held

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(string.startswith(text[-length:]) for string in self._strings):
                return length
        return 0
