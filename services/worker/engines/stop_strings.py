"""Finds stop strings in a text that arrives in pieces, and holds back what may become one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache


@dataclass(slots=True, eq=False)
class _State:
    """What the end of the text may still become: the longest start of a string that it is."""

    depth: int
    next: dict[str, _State] = field(default_factory=dict)
    shorter: _State | None = None
    """The next longest such start. None at the root, which is the empty text."""
    match: int = 0
    """Length of the longest string with which the text ends here. 0 if with none."""


class StopStrings:
    """Matches the stop strings of one sequence, in time that does not grow with their number.

    The match is the one that is complete first, then the longest, whatever the pieces; so a stop
    string is found across token borders, and no character of it is released before. The automaton
    is that of Aho and Corasick, "Efficient string matching" (1975).
    """

    def __init__(self, strings: Sequence[str], *, include: bool = False) -> None:
        self._root = _automaton(tuple(strings)) if strings else None
        self._state = self._root
        self._include = include
        self._held = ""

    def feed(self, text: str, *, may_end: bool = True) -> tuple[str, str | None]:
        """Takes the next piece. Returns the text that is safe to release, and the match, if any.

        With `may_end` false nothing matches that ends within this piece.
        """
        state = self._state
        if state is None:
            return text, None
        held = len(self._held)
        text = self._held + text
        for at in range(held, len(text)):
            state = _step(state, text[at])
            if state.match and may_end:
                end = at + 1
                start = end - state.match
                self._held = ""
                self._state = self._root
                return text[: end if self._include else start], text[start:end]
            if not state.next and state.shorter is not None:
                # A whole string, which was passed over: what counts is what may still come of it.
                state = state.shorter
        self._state = state
        released = len(text) - state.depth
        self._held = text[released:]
        return text[:released], None

    def flush(self) -> str:
        """What was held back, once nothing more comes."""
        held, self._held = self._held, ""
        self._state = self._root
        return held


def _step(state: _State, letter: str) -> _State:
    while True:
        following = state.next.get(letter)
        if following is not None:
            return following
        if state.shorter is None:
            return state
        state = state.shorter


@lru_cache(maxsize=64)
def _automaton(strings: tuple[str, ...]) -> _State:
    """Shared by the choices of a request, and by requests with the same strings."""
    root = _State(0)
    for string in strings:
        state = root
        for letter in string:
            state = state.next.setdefault(letter, _State(state.depth + 1))
        state.match = state.depth
    waiting = deque(root.next.values())
    for state in waiting:
        state.shorter = root
    while waiting:
        state = waiting.popleft()
        for letter, following in state.next.items():
            assert state.shorter is not None
            following.shorter = _step(state.shorter, letter)
            following.match = following.match or following.shorter.match
            waiting.append(following)
    return root
