"""How many sequences may run or wait."""

from __future__ import annotations

import pytest

from services.mesh.errors import InvalidRequestError, QueueFullError
from services.worker.engines.transformers.scheduling.places import Places


class TestPlaces:
    def test_as_many_wait_as_may(self) -> None:
        places = Places(max_running=2, max_waiting=1)
        for key in "abc":
            places.take(key, 1)
        with pytest.raises(QueueFullError) as refused:
            places.take("d", 1)
        assert refused.value.retry_after_s
        places.end_choice("a")
        places.take("d", 1)

    def test_each_choice_counts(self) -> None:
        places = Places(max_running=2, max_waiting=2)
        places.take("a", 3)
        places.take("b", 3)
        with pytest.raises(QueueFullError):
            places.take("c", 1)
        for _ in range(3):
            places.end_choice("a")
        assert "a" not in places
        assert places.taken == 3
        places.give_back("b")
        places.give_back("b")
        places.end_choice("b")
        assert places.taken == 0

    def test_a_key_is_taken_once(self) -> None:
        places = Places(max_running=2, max_waiting=2)
        places.take("a", 1)
        with pytest.raises(InvalidRequestError) as refused:
            places.take("a", 1)
        assert refused.value.reason == "REQUEST_KEY_IN_USE"
