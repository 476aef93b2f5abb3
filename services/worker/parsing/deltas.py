"""Puts the deltas of a parser together, as one chunk tells them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from services.worker.chat_formats.base import (
    Content,
    Delta,
    Reasoning,
    ToolCallArguments,
    ToolCallStarted,
)
from services.worker.parsing.parsed import ToolCallPiece


@dataclass(frozen=True, slots=True)
class Told:
    """What some deltas come to."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallPiece, ...] = ()

    @property
    def argument_characters(self) -> int:
        """Length of what is added to arguments."""
        return sum(len(piece.arguments) for piece in self.tool_calls)

    def __bool__(self) -> bool:
        return bool(self.text or self.reasoning or self.tool_calls)


class Calls:
    """The calls that one choice has made.

    Args:
        call_id: makes the id of a call from its index.
        at_most: calls beyond so many are not told; None for any number.
    """

    def __init__(self, call_id: Callable[[int], str], at_most: int | None) -> None:
        self.is_over_limit = False
        """Whether a call came that is not told."""
        self._call_id = call_id
        self._at_most = at_most
        self._count = 0
        self._arguments: list[str] = []
        """Of the last call."""

    @property
    def has_whole(self) -> bool:
        """Whether at least one call is complete: another one follows it, or its arguments are
        JSON."""
        if self._count != 1:
            return self._count > 1
        try:
            json.loads("".join(self._arguments))
        except (ValueError, RecursionError):
            return False
        return True

    def tell(self, deltas: Iterable[Delta]) -> Told:
        """What the deltas add. What comes after a call too many is left out."""
        texts: list[str] = []
        reasoning: list[str] = []
        pieces: list[ToolCallPiece] = []
        for delta in deltas if not self.is_over_limit else ():
            if isinstance(delta, Content):
                texts.append(delta.text)
            elif isinstance(delta, Reasoning):
                reasoning.append(delta.text)
            elif isinstance(delta, ToolCallStarted):
                if delta.call_index == self._at_most:
                    self.is_over_limit = True
                    break
                self._count += 1
                self._arguments.clear()
                index = delta.call_index
                pieces.append(ToolCallPiece(index, self._call_id(index), delta.name, ""))
            else:
                self._arguments.append(delta.text)
                _add(pieces, delta)
        return Told("".join(texts), "".join(reasoning), tuple(pieces))


def _add(pieces: list[ToolCallPiece], delta: ToolCallArguments) -> None:
    """Adds to the last piece where that is of the same call."""
    if pieces and pieces[-1].call_index == delta.call_index:
        last = pieces.pop()
        pieces.append(replace(last, arguments=last.arguments + delta.text))
    else:
        pieces.append(ToolCallPiece(delta.call_index, None, None, delta.text))
