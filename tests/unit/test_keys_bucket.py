"""Rates with the memory of a minute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.keys.durations import duration_text
from services.gateway.keys.token_bucket import TokenBucket


def test_it_begins_full_and_fills_at_its_rate() -> None:
    bucket = TokenBucket(60, now_s=100.0)
    assert bucket.level(100.0) == 60
    bucket.take(60, 100.0)
    assert not bucket.has(1, 100.5)
    assert bucket.has(1, 101.0)
    assert bucket.level(130.0) == 30
    assert bucket.level(1000.0) == 60


def test_what_is_overdrawn_is_owed() -> None:
    bucket = TokenBucket(600, now_s=0.0)
    bucket.take(1200, 0.0)
    assert bucket.wait_s(1, 0.0) == pytest.approx(60.1)
    assert bucket.wait_s(0, 30.0) == pytest.approx(30.0)
    bucket.take(-600, 30.0)
    assert bucket.wait_s(0, 30.0) == 0


def test_nobody_waits_for_more_than_fits() -> None:
    bucket = TokenBucket(6, now_s=0.0)
    bucket.take(6, 0.0)
    assert bucket.wait_s(1000, 0.0) == pytest.approx(60)


def test_another_rate_keeps_what_is_owed() -> None:
    bucket = TokenBucket(60, now_s=0.0)
    bucket.take(90, 0.0)
    bucket.change_rate(600, 10.0)
    assert bucket.level(10.0) == -20
    bucket.change_rate(6, 1000.0)
    assert bucket.level(1000.0) == 6


steps = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 40)), min_size=1, max_size=60)


@given(st.integers(1, 6000), steps)
def test_no_stretch_of_time_lets_more_through_than_a_minute_and_the_rate(
    per_minute: int, asked: list[tuple[float, int]]
) -> None:
    bucket = TokenBucket(per_minute, now_s=0.0)
    now_s = 0.0
    let_through: list[tuple[float, int]] = []
    for pause_s, units in asked:
        now_s += pause_s
        if bucket.has(units, now_s):
            bucket.take(units, now_s)
            let_through.append((now_s, units))
    for first in range(len(let_through)):
        total = 0
        for at_s, units in let_through[first:]:
            total += units
            elapsed_s = at_s - let_through[first][0]
            assert total <= per_minute + elapsed_s * per_minute / 60 + 1e-3


@given(st.integers(1, 6000), st.integers(0, 20_000), st.floats(0, 1e6))
def test_who_waits_as_told_is_let_through(per_minute: int, taken: int, now_s: float) -> None:
    bucket = TokenBucket(per_minute, now_s)
    bucket.take(taken, now_s)
    wait_s = bucket.wait_s(1, now_s)
    assert bucket.has(1, now_s + wait_s)
    if wait_s > 0.01:
        assert not bucket.has(1, now_s + wait_s / 2)


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0.0, "0ms"),
        (0.1201, "121ms"),
        (1.0, "1s"),
        (7.651, "7.66s"),
        (60.0, "1m0s"),
        (360.2, "6m1s"),
        (3723.0, "1h2m3s"),
    ],
)
def test_durations_read_as_openai_writes_them(duration_s: float, text: str) -> None:
    assert duration_text(duration_s) == text
