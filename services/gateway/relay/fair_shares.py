"""Start-time fair queueing among named lines.

Goyal, Vin and Cheng, "Start-time fair queueing: a scheduling algorithm for integrated services
packet switching networks" (1996). The next request of each line has a start tag: when, in virtual
time, the line's last one was done, or now where the line was empty. The least goes first, and the
cost of what it takes, divided by its line's weight, puts off the line's next. No rate needs to be
known, and a line that was empty has saved nothing up.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, cast

FORGET_BEYOND = 64
"""Lines that may be empty beside as many as are not, before those that owe nothing are dropped."""


class Costly(Protocol):
    """What waits in a line."""

    cost_tokens: float


Item = TypeVar("Item", bound=Costly)
Item_co = TypeVar("Item_co", bound=Costly, covariant=True)


class Line(Protocol[Item_co]):
    """What shares. `length` counts what waits in it; the owner of the whole queue keeps it."""

    length: int

    def pop(self) -> Item_co:
        """Takes out the next."""
        ...


LineT = TypeVar("LineT", bound=Line[Costly])


class _Share(Generic[LineT]):
    __slots__ = ("finish", "is_active", "line", "weight")

    def __init__(self, line: LineT, weight: float) -> None:
        self.line = line
        self.weight = weight
        self.finish = 0.0
        self.is_active = False


class FairShares(Generic[LineT, Item]):
    """Lines that share by weight.

    Args:
        make_line: makes the line of a name that is new.
    """

    def __init__(self, make_line: Callable[[], LineT]) -> None:
        self.length = 0
        self._make_line = make_line
        self._shares: dict[str, _Share[LineT]] = {}
        self._active: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._virtual_time = 0.0
        self._latest_finish = 0.0

    def find(self, name: str) -> LineT | None:
        """The line of that name, if there is one."""
        share = self._shares.get(name)
        return None if share is None else share.line

    def line(self, name: str, weight: float = 1.0) -> LineT:
        """The line of that name, made where there is none; it has this weight from now on."""
        if not self.length:
            # Nobody waits, so nobody has been put off: all start level again.
            self._virtual_time = self._latest_finish
        share = self._shares.get(name)
        if share is None:
            self._forget()
            share = self._shares[name] = _Share(self._make_line(), weight)
        share.weight = weight
        return share.line

    def activate(self, name: str) -> None:
        """Notes that something waits in a line."""
        share = self._shares[name]
        if not share.is_active:
            share.is_active = True
            start = max(self._virtual_time, share.finish)
            heapq.heappush(self._active, (start, next(self._order), name))

    def pop(self) -> Item:
        """Takes out the next of the line whose turn it is. Something must wait."""
        while True:
            start, _, name = heapq.heappop(self._active)
            share = self._shares[name]
            share.is_active = False
            if share.line.length:
                break
        self._virtual_time = start
        taken = cast("Item", share.line.pop())
        share.finish = start + taken.cost_tokens / share.weight
        self._latest_finish = max(self._latest_finish, share.finish)
        # One is taken out, but still counted.
        if share.line.length > 1:
            self.activate(name)
        return taken

    def longest(self) -> LineT | None:
        """The line with most waiting for its weight, of equal ones the newest; None when nothing
        waits.
        """
        waiting = [share for share in self._shares.values() if share.line.length]
        if not waiting:
            return None
        return max(reversed(waiting), key=lambda share: share.line.length / share.weight).line

    def _forget(self) -> None:
        """Drops empty lines that owe nothing: they would start where a new one does."""
        if len(self._shares) > 2 * len(self._active) + FORGET_BEYOND:
            self._shares = {
                name: share
                for name, share in self._shares.items()
                if share.is_active or share.finish > self._virtual_time
            }
