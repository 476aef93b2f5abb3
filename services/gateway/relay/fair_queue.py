"""Requests that wait, and whose turn is next.

Callers share by weight, in tokens: who asks much waits behind itself, not before others. Of one
caller, higher priority goes first; of one priority, the caller's users share evenly; of one user,
who came first. `fair_shares` holds the algorithm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from services.gateway.relay.caller import Caller
from services.gateway.relay.fair_shares import FairShares


@dataclass(eq=False, slots=True)
class Waiting:
    """A request in the queue. `cost_tokens` is what it is expected to take; over 0."""

    caller: Caller
    priority: int
    cost_tokens: float
    is_gone: bool = False
    lines: tuple[_Line, ...] = field(default=(), repr=False)
    """Those that count it, from the whole queue to its user's."""


class _Line(Protocol):
    length: int


class FairQueue:
    """The whole queue."""

    def __init__(self) -> None:
        self._callers: FairShares[_Caller, Waiting] = FairShares(_Caller)

    def __len__(self) -> int:
        return self._callers.length

    def length_of(self, caller: Caller) -> int:
        """How many of the caller's wait."""
        line = self._callers.find(caller.identity)
        return 0 if line is None else line.length

    def push(self, waiting: Waiting) -> None:
        """Takes one more."""
        caller = waiting.caller
        own = self._callers.line(caller.identity, caller.weight)
        users = own.users(waiting.priority)
        user = users.line(caller.user)
        user.waiting.append(waiting)
        waiting.lines = (self._callers, own, users, user)
        for line in waiting.lines:
            line.length += 1
        users.activate(caller.user)
        self._callers.activate(caller.identity)

    def pop(self) -> Waiting | None:
        """Takes out the one whose turn is next; None when nobody waits."""
        if not self._callers.length:
            return None
        first = self._callers.pop()
        _leave(first)
        return first

    def remove(self, waiting: Waiting) -> None:
        """Takes out one, wherever it stands. Nothing where it is out already."""
        if not waiting.is_gone:
            _leave(waiting)

    def last_of_longest(self) -> Waiting | None:
        """Of the caller who has most waiting for its weight: the one that would wait longest.

        None when nobody waits. Looks at every caller.
        """
        line = self._callers.longest()
        return None if line is None else line.last()


def _leave(waiting: Waiting) -> None:
    waiting.is_gone = True
    for line in waiting.lines:
        line.length -= 1


class _User:
    """The requests of one user at one priority, in the order they came."""

    def __init__(self) -> None:
        self.length = 0
        self.waiting: deque[Waiting] = deque()

    def pop(self) -> Waiting:
        """The first that is not gone; there must be one."""
        while (first := self.waiting.popleft()).is_gone:
            pass
        return first

    def last(self) -> Waiting:
        """The last that is not gone; there must be one."""
        while self.waiting[-1].is_gone:
            self.waiting.pop()
        return self.waiting[-1]


class _Caller:
    """The requests of one caller, by priority and user."""

    def __init__(self) -> None:
        self.length = 0
        self._by_priority: dict[int, FairShares[_User, Waiting]] = {}

    def users(self, priority: int) -> FairShares[_User, Waiting]:
        """The caller's users at a priority."""
        return self._by_priority.setdefault(priority, FairShares(_User))

    def pop(self) -> Waiting:
        """The next of the highest priority; there must be one."""
        return self._by_priority[self._end(max)].pop()

    def last(self) -> Waiting:
        """The last of the user who has most waiting at the lowest priority; there must be one."""
        user = self._by_priority[self._end(min)].longest()
        assert user is not None
        return user.last()

    def _end(self, which: Callable[[Iterable[int]], int]) -> int:
        """The highest or the lowest priority that somebody waits at."""
        self._by_priority = {each: line for each, line in self._by_priority.items() if line.length}
        return which(self._by_priority)
