"""Credit for the engine: the client's, within the worker's own window."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from services.worker.generate.credit import CreditWindow


def test_without_a_client_limit_the_window_moves_on() -> None:
    window = CreditWindow(0, window_tokens=10)
    assert (window.granted_tokens, window.top_up_at_tokens) == (10, 5)
    assert window.top_up(5) == 5
    assert (window.granted_tokens, window.top_up_at_tokens) == (15, 10)


def test_the_client_limit_holds() -> None:
    window = CreditWindow(12, window_tokens=10)
    assert window.top_up(9) == 2
    assert window.top_up_at_tokens == math.inf
    assert window.top_up(12) == 0
    window.extend(3)
    assert window.top_up(12) == 3


def test_client_credit_below_the_window_is_all_there_is() -> None:
    window = CreditWindow(4, window_tokens=10)
    assert window.granted_tokens == 4
    assert window.top_up(4) == 0


@given(
    client=st.integers(0, 200),
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), max_size=40),
)
def test_no_more_than_granted_is_produced_and_no_more_than_wanted_is_granted(
    client: int, steps: list[tuple[int, int]]
) -> None:
    window = CreditWindow(client, window_tokens=16)
    limit = client or math.inf
    produced = 0
    for wanted, extended in steps:
        window.extend(extended)
        limit += extended
        produced = min(produced + wanted, window.granted_tokens)
        before = window.granted_tokens
        granted = window.top_up(produced)
        assert window.granted_tokens == before + granted
        assert window.granted_tokens <= limit
        assert window.granted_tokens <= max(before, produced + 16)
