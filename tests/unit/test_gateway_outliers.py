"""Which workers count as slow beside the others."""

from __future__ import annotations

import pytest

from services.gateway.links.outliers import outliers


@pytest.mark.parametrize(
    ("inter_token_s", "slow"),
    [
        ({}, set()),
        ({"a": 1.0}, set()),
        ({"a": 1.0, "b": 0.0}, set()),
        ({"a": 0.05, "b": 0.2}, set()),
        ({"a": 0.05, "b": 0.3}, {"b"}),
        ({"a": 0.05, "b": 0.06, "c": 5.0}, {"c"}),
        ({"a": 0.05, "b": 5.0, "c": 5.0}, set()),
        ({"a": 0.05, "b": 0.05, "c": 5.0, "d": 5.0, "e": 0.05}, {"c", "d"}),
    ],
)
def test_slow_beside_the_middle_of_the_others(
    inter_token_s: dict[str, float], slow: set[str]
) -> None:
    assert outliers(inter_token_s) == slow
