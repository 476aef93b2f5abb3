"""The lease clock stands still while the process does."""

from __future__ import annotations

import pytest

from services.controller.clock import MAX_GAP_S, LeaseClock


@pytest.mark.parametrize(
    ("readings_s", "now_s"),
    [
        ([100.0], 0.0),
        ([100.0, 100.25, 100.5], 0.5),
        ([100.0, 100.0 + MAX_GAP_S], MAX_GAP_S),
        ([100.0, 100.25, 160.25, 160.5], 0.25 + MAX_GAP_S + 0.25),
        ([100.0, 99.0, 99.5], 0.5),
    ],
)
def test_gaps_do_not_count(readings_s: list[float], now_s: float) -> None:
    readings = iter(readings_s)
    clock = LeaseClock(lambda: next(readings))
    times = [0.0, *(clock.now_s() for _ in readings_s[1:])]
    assert times[-1] == pytest.approx(now_s)
    assert times == sorted(times)
