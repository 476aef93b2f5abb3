"""The breaker, by table: what happens when, and whether requests are let through."""

from __future__ import annotations

import pytest

from services.gateway.links.breaker import Breaker, BreakerState, BreakerTuning

TUNING = BreakerTuning(faults_to_trip=3, initial_backoff_s=1.0, max_backoff_s=4.0)


def play(*steps: tuple[float, str]) -> Breaker:
    """A breaker after steps of (time in seconds, what happens)."""
    breaker = Breaker(TUNING)
    for now_s, what in steps:
        if what in ("begin", "fault", "trip"):
            getattr(breaker, what)(now_s)
        else:
            getattr(breaker, what)()
    return breaker


@pytest.mark.parametrize(
    ("steps", "now_s", "admits"),
    [
        ([], 0, True),
        ([(0, "fault")] * 2, 0, True),
        ([(0, "fault")] * 3, 0, False),
        ([(0, "fault"), (0, "fault"), (0, "succeed"), (0, "fault")], 0, True),
        ([(0, "trip")], 0.9, False),
        ([(0, "trip")], 1.0, True),
        # One trial at a time, until one backoff has passed without word of it.
        ([(0, "trip"), (1, "begin")], 1.5, False),
        ([(0, "trip"), (1, "begin")], 2.0, True),
        ([(0, "trip"), (1, "begin"), (1.5, "succeed")], 1.5, True),
        # A failed trial doubles the backoff, up to its limit.
        ([(0, "trip"), (1, "begin"), (1.5, "fault")], 3.4, False),
        ([(0, "trip"), (1, "begin"), (1.5, "fault")], 3.5, True),
        ([(0, "trip")] * 5, 3.9, False),
        ([(0, "trip")] * 5, 4.0, True),
        # After a probe went well, one fault trips again with a longer backoff.
        ([(0, "trip"), (1, "begin"), (1, "reopen_stream")], 1, True),
        ([(0, "trip"), (1, "begin"), (1, "reopen_stream"), (1, "fault")], 2.9, False),
        ([(0, "trip"), (1, "begin"), (1, "reopen_stream"), (1, "fault")], 3.0, True),
        # A success forgets all of it.
        ([(0, "trip"), (1, "reopen_stream"), (1, "succeed"), (1, "fault")], 1, True),
        ([(0, "trip"), (0, "trip"), (0, "succeed"), (5, "trip")], 6.0, True),
        # Faults of what ran before it tripped do not make the backoff longer.
        ([(0, "trip"), (0.5, "fault"), (0.9, "fault")], 1.0, True),
    ],
)
def test_admission(steps: list[tuple[float, str]], now_s: float, admits: bool) -> None:
    assert play(*steps).admits(now_s) is admits


def test_states_have_names() -> None:
    assert play().state is BreakerState.CLOSED
    assert play((0, "trip")).state is BreakerState.OPEN
    assert play((0, "trip"), (1, "begin")).state is BreakerState.HALF_OPEN


def test_a_fault_tells_whether_it_tripped() -> None:
    breaker = Breaker(TUNING)
    assert [breaker.fault(0) for _ in range(4)] == [False, False, True, False]
