"""What holds for every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.bugs import none_logged


@pytest.fixture(autouse=True)
def nothing_is_a_bug() -> Iterator[None]:
    """Services that run in the test's process log no error."""
    with none_logged():
        yield
