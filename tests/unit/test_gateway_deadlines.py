"""How long a client gives a request, as it writes it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from services.gateway.api.deadlines import time_left_s
from services.mesh.errors import InvalidRequestError


class Context:
    """A call with a deadline of its own, and metadata."""

    def __init__(self, remaining_s: float | None, *values: str) -> None:
        self._remaining_s = remaining_s
        self._values = values

    def time_remaining(self) -> float | None:
        return self._remaining_s

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(("x-request-timeout", value) for value in self._values)


@pytest.mark.parametrize(
    ("remaining_s", "values", "left_s"),
    [
        (None, (), None),
        (7.0, (), 7.0),
        (None, ("2.5",), 2.5),
        (None, ("2.5s",), 2.5),
        (None, ("500ms",), 0.5),
        (None, (" 3m ",), 180.0),
        (None, ("1h",), 3600.0),
        (None, (".5",), 0.5),
        (7.0, ("2",), 2.0),
        (1.0, ("2",), 1.0),
        (None, ("9", "4"), 4.0),
    ],
)
def test_the_least_of_all_counts(
    remaining_s: float | None, values: tuple[str, ...], left_s: float | None
) -> None:
    assert time_left_s(cast("Any", Context(remaining_s, *values))) == left_s


@pytest.mark.parametrize(
    "value", ["", "soon", "-1", "0", "0ms", "nan", "inf", "1e9", "1 s", "5d", "1_0", "٣", "9" * 40]
)
def test_what_is_no_duration_is_named(value: str) -> None:
    with pytest.raises(InvalidRequestError, match="such as 30") as wrong:
        time_left_s(cast("Any", Context(None, value)))
    assert wrong.value.field == "x-request-timeout"
