"""Where requests wait while every worker of their model has as much to do as it should.

They wait here and not at the workers, because only here can callers be treated fairly, whichever
worker takes them, and because a request that is dropped here has cost no worker anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from services.gateway.relay.caller import Caller
from services.gateway.relay.drain_rate import DrainRate
from services.gateway.relay.fair_queue import FairQueue, Waiting
from services.mesh.errors import DeadlineError, QueueFullError

MIN_WAITING = 16
"""So many may wait however slowly the workers drain the queue: a burst is no overload."""


@dataclass(frozen=True)
class WaitingLimits:
    """How long the queue of a model may grow."""

    max_waiting: int = 512
    max_wait_s: float = 30.0


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """Who waits for which model. `deadline_s` is on the monotonic clock."""

    model: str
    caller: Caller
    priority: int
    cost_tokens: float
    deadline_s: float


class WaitingMetrics(Protocol):
    """What is counted of those that wait."""

    def count_waiting(self, model: str, change: int) -> None:
        """So many more wait, or fewer."""
        ...

    def observe_wait(self, model: str, wait_s: float) -> None:
        """One has had its turn after so long."""
        ...

    def count_reject(self, reason: str) -> None:
        """One was refused: "waiting", or "deadline" where its time was up."""
        ...


@dataclass(eq=False, slots=True)
class _Line:
    """Those that wait for one model."""

    queue: FairQueue = field(default_factory=FairQueue)
    turns: dict[Waiting, asyncio.Future[None]] = field(default_factory=dict)
    rate: DrainRate = field(default_factory=DrainRate)
    beginning: int = 0
    """Those whose turn has come, but who are not with a worker yet."""


class WaitingRoom:
    """One bounded fair queue for each model.

    Args:
        free_places: how many more requests the workers of a model should take just now; infinite
            where that is not known, or where there is none to wait for.
        clock_s: a monotonic clock.
    """

    def __init__(
        self,
        limits: WaitingLimits,
        *,
        free_places: Callable[[str], float],
        metrics: WaitingMetrics,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._free_places = free_places
        self._metrics = metrics
        self._clock_s = clock_s
        self._lines: dict[str, _Line] = {}
        self._all = DrainRate()

    @asynccontextmanager
    async def turn(self, asked: TurnRequest) -> AsyncIterator[None]:
        """Waits until it is the request's turn. To be left once it is with a worker.

        Raises:
            QueueFullError: as many wait as may, or others' turn comes first for so long that this
                one had to make room for a caller who has less waiting.
            DeadlineError: its time was up before.
        """
        line = self._lines.get(asked.model)
        if line is None:
            line = self._lines[asked.model] = _Line()
        if len(line.queue) or not self._has_place(asked.model, line):
            await self._wait(line, asked)
        else:
            line.beginning += 1
        try:
            yield
        finally:
            line.beginning -= 1
            self.look_again()

    def leave(self, model: str) -> None:
        """Notes that a request that had its turn is over."""
        now_s = self._clock_s()
        self._all.count(now_s)
        line = self._lines.get(model)
        if line is not None:
            line.rate.count(now_s)
        self.look_again()

    def look_again(self) -> None:
        """Lets those go on for whom there is a place now."""
        for model, line in self._lines.items():
            while len(line.queue) and self._has_place(model, line):
                self._begin_next(line)

    def retry_after_s(self) -> float:
        """When to come again, for who is refused before it is known what for."""
        waiting = sum(len(line.queue) for line in self._lines.values())
        return self._all.wait_s(waiting + 1, self._clock_s())

    def _has_place(self, model: str, line: _Line) -> bool:
        return self._free_places(model) - line.beginning >= 1

    def _begin_next(self, line: _Line) -> None:
        waiting = line.queue.pop()
        assert waiting is not None
        turn = line.turns[waiting]
        if not turn.done():
            line.beginning += 1
            turn.set_result(None)

    async def _wait(self, line: _Line, asked: TurnRequest) -> None:
        began_s = self._clock_s()
        self._make_room(line, asked.caller, began_s)
        waiting = Waiting(asked.caller, asked.priority, asked.cost_tokens)
        turn = line.turns[waiting] = asyncio.get_running_loop().create_future()
        line.queue.push(waiting)
        self._metrics.count_waiting(asked.model, 1)
        try:
            async with asyncio.timeout(asked.deadline_s - began_s):
                await turn
        except BaseException as error:
            if _has_come(turn):
                line.beginning -= 1
                self.look_again()
            if isinstance(error, TimeoutError):
                self._metrics.count_reject("deadline")
                raise DeadlineError(
                    f"the request's time was up after {self._clock_s() - began_s:.1f} s in the "
                    "queue: no worker had a place for it"
                ) from None
            raise
        finally:
            line.queue.remove(waiting)
            del line.turns[waiting]
            self._metrics.count_waiting(asked.model, -1)
        self._metrics.observe_wait(asked.model, self._clock_s() - began_s)

    def _make_room(self, line: _Line, caller: Caller, now_s: float) -> None:
        """Sees that one more may wait: a full queue gives up the last request of the caller who has
        most in it, so that nobody can keep others out by filling it.

        Raises:
            QueueFullError: the new one is of that caller.
        """
        if len(line.queue) < self._limit(line, now_s):
            return
        self._metrics.count_reject("waiting")
        wait_s = line.rate.wait_s(len(line.queue) + 1, now_s)
        error = QueueFullError(
            f"{len(line.queue)} requests wait already, as many as may; try again later",
            retry_after_s=wait_s,
        )
        last = line.queue.last_of_longest()
        own = (line.queue.length_of(caller) + 1) / caller.weight
        if last is None or line.queue.length_of(last.caller) / last.caller.weight <= own:
            raise error
        line.queue.remove(last)
        turn = line.turns[last]
        if not turn.done():
            turn.set_exception(error)

    def _limit(self, line: _Line, now_s: float) -> int:
        """How many may wait: no more than have their turn within the longest wait."""
        rate = line.rate.per_second(now_s)
        if rate is None:
            return self._limits.max_waiting
        drained = round(rate * self._limits.max_wait_s)
        return min(self._limits.max_waiting, max(MIN_WAITING, drained))


def _has_come(turn: asyncio.Future[None]) -> bool:
    return turn.done() and not turn.cancelled() and turn.exception() is None
