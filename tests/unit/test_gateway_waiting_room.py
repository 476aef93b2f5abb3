"""Requests wait in the gateway while its workers are full, bounded in number and in time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import pytest

from services.gateway.relay.admission import Admission
from services.gateway.relay.caller import Caller
from services.gateway.relay.waiting_room import (
    MIN_WAITING,
    TurnRequest,
    WaitingLimits,
    WaitingRoom,
)
from services.mesh.errors import DeadlineError, QueueFullError

LONG_S = 60.0


class Counts:
    """Metrics that a test can read."""

    def __init__(self) -> None:
        self.waiting: Counter[str] = Counter()
        self.waits: list[str] = []
        self.rejects: Counter[str] = Counter()

    def count_waiting(self, model: str, change: int) -> None:
        self.waiting[model] += change

    def observe_wait(self, model: str, wait_s: float) -> None:
        self.waits.append(model)

    def count_reject(self, reason: str) -> None:
        self.rejects[reason] += 1


class Workers:
    """So many places, and a room before them."""

    def __init__(self, places: float, limits: WaitingLimits | None = None) -> None:
        self.free = places
        self.served: list[str] = []
        self.metrics = Counts()
        self.room = WaitingRoom(
            limits or WaitingLimits(), free_places=lambda model: self.free, metrics=self.metrics
        )

    def ask(
        self, name: str, *, model: str = "m", limit_s: float = LONG_S, weight: float = 1.0
    ) -> asyncio.Task[None]:
        return asyncio.create_task(self._ask(name, model, limit_s, weight))

    async def _ask(self, name: str, model: str, limit_s: float, weight: float) -> None:
        identity, _, _ = name.partition("-")
        asked = TurnRequest(
            model, Caller(identity, weight=weight), 0, 10.0, time.monotonic() + limit_s
        )
        async with self.room.turn(asked):
            self.free -= 1
            self.served.append(name)

    def end(self, *, model: str = "m") -> None:
        self.free += 1
        self.room.leave(model)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.002)


async def test_nobody_waits_while_there_are_places() -> None:
    workers = Workers(2)
    await workers.ask("a")
    await workers.ask("b")
    assert workers.served == ["a", "b"]
    assert workers.metrics.waits == []


async def test_who_waits_goes_on_when_a_place_is_free() -> None:
    workers = Workers(1)
    tasks = [workers.ask(name) for name in ("a-1", "a-2", "a-3", "b-1")]
    await settle()
    assert workers.served == ["a-1"]
    assert workers.metrics.waiting["m"] == 3
    for _ in range(3):
        workers.end()
        await settle()
    await asyncio.gather(*tasks)
    assert workers.served == ["a-1", "a-2", "b-1", "a-3"]
    assert workers.metrics.waiting["m"] == 0
    assert len(workers.metrics.waits) == 3


async def test_a_place_is_given_once() -> None:
    """Turns that have come count before their requests are with a worker."""
    workers = Workers(0)
    tasks = [workers.ask(f"a-{index}") for index in range(4)]
    await settle()
    workers.free = 2
    workers.room.look_again()
    workers.room.look_again()
    await settle()
    assert len(workers.served) == 2
    assert workers.free == 0
    for task in tasks[2:]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_expired_requests_cost_no_place() -> None:
    workers = Workers(0)
    expired = workers.ask("a-1", limit_s=0.01)
    patient = workers.ask("a-2")
    with pytest.raises(DeadlineError, match="queue"):
        await expired
    workers.free = 1
    workers.room.look_again()
    await patient
    assert workers.served == ["a-2"]
    assert workers.metrics.rejects == {"deadline": 1}
    assert workers.metrics.waiting["m"] == 0


async def test_who_leaves_gives_its_turn_to_the_next() -> None:
    workers = Workers(0)
    first, second = workers.ask("a-1"), workers.ask("a-2")
    await settle()
    workers.free = 1
    workers.room.look_again()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert workers.served == ["a-2"]


async def test_a_failed_start_gives_its_place_back() -> None:
    workers = Workers(1)
    asked = TurnRequest("m", Caller("a"), 0, 1.0, time.monotonic() + LONG_S)
    with pytest.raises(RuntimeError, match="no worker"):
        async with workers.room.turn(asked):
            raise RuntimeError("no worker")
    await workers.ask("b")
    assert workers.served == ["b"]


async def test_a_full_queue_refuses_with_a_time() -> None:
    workers = Workers(0, WaitingLimits(max_waiting=2))
    waiting = [workers.ask("a-1"), workers.ask("a-2")]
    await settle()
    with pytest.raises(QueueFullError) as refused:
        await workers.ask("a-3")
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s >= 1
    assert workers.metrics.rejects == {"waiting": 1}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_nobody_keeps_others_out_by_filling_the_queue() -> None:
    workers = Workers(0, WaitingLimits(max_waiting=4))
    greedy = [workers.ask(f"greedy-{index}") for index in range(4)]
    await settle()
    modest = workers.ask("modest-1")
    with pytest.raises(QueueFullError):
        await greedy[-1]
    second = workers.ask("modest-2")
    with pytest.raises(QueueFullError):
        await greedy[-2]
    with pytest.raises(QueueFullError):
        await workers.ask("modest-3")
    workers.free = 4
    workers.room.look_again()
    await asyncio.gather(modest, second, *greedy[:2])
    assert workers.served == ["greedy-0", "modest-1", "greedy-1", "modest-2"]


async def test_models_do_not_wait_for_each_other() -> None:
    free = {"full": 0.0, "idle": 1.0}
    room = WaitingRoom(WaitingLimits(), free_places=free.__getitem__, metrics=Counts())
    deadline_s = time.monotonic() + LONG_S

    async def ask(model: str) -> str:
        async with room.turn(TurnRequest(model, Caller("a"), 0, 1.0, deadline_s)):
            return model

    waiting = asyncio.create_task(ask("full"))
    await settle()
    assert await ask("idle") == "idle"
    assert not waiting.done()
    free["full"] = 1.0
    room.look_again()
    assert await waiting == "full"


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def test_the_queue_is_as_long_as_drains_in_the_longest_wait() -> None:
    clock = Clock()
    room = WaitingRoom(
        WaitingLimits(max_waiting=500, max_wait_s=10.0),
        free_places=lambda model: 0.0,
        metrics=Counts(),
        clock_s=clock,
    )
    tasks: list[asyncio.Task[None]] = []

    async def ask() -> None:
        async with room.turn(TurnRequest("m", Caller("a"), 0, 1.0, clock.now_s + LONG_S)):
            pass

    async def fill() -> int:
        tasks.extend(asyncio.create_task(ask()) for _ in range(600))
        await settle()
        return sum(not task.done() for task in tasks)

    assert await fill() == 500
    for _ in range(450):
        tasks.pop(0).cancel()
    await settle()
    for _ in range(200):
        clock.now_s += 0.1
        room.leave("m")
    assert 95 <= await fill() <= 105
    with pytest.raises(QueueFullError) as refused:
        await ask()
    assert refused.value.retry_after_s == pytest.approx(10, rel=0.1)
    clock.now_s += 300.0
    for task in tasks:
        task.cancel()
    await settle()
    tasks.clear()
    assert await fill() == MIN_WAITING
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class TestAdmission:
    def test_all_together_are_bounded(self) -> None:
        refused: list[str] = []
        admission = Admission(2, retry_after_s=lambda: 7.0, on_refuse=refused.append)
        admission.admit(Caller("a"))
        admission.admit(Caller("b"))
        with pytest.raises(QueueFullError) as full:
            admission.admit(Caller("c"))
        assert full.value.retry_after_s == 7.0
        assert refused == ["requests"]
        admission.release(Caller("a"))
        admission.admit(Caller("c"))
        assert admission.running == 2

    def test_each_caller_is_bounded(self) -> None:
        refused: list[str] = []
        admission = Admission(9, limit_per_caller=1, on_refuse=refused.append)
        admission.admit(Caller("a", "one"))
        with pytest.raises(QueueFullError, match="of yours"):
            admission.admit(Caller("a", "two"))
        admission.admit(Caller("b"))
        admission.release(Caller("a", "one"))
        admission.admit(Caller("a"))
        assert refused == ["caller"]
        assert admission.running == 2
