"""Who comes next, and how a step's prompt tokens are divided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.engines.transformers.scheduling.prefill_shares import fair_shares
from services.worker.engines.transformers.scheduling.waiting_line import WaitingLine
from tests.sequences import choices, scheduler_of, sequence, step


class TestFairShares:
    @pytest.mark.parametrize(
        ("wanted", "budget", "shares"),
        [
            ([], 8, []),
            ([5], 8, [5]),
            ([5, 2], 8, [5, 2]),
            ([4000, 30], 512, [482, 30]),
            ([5, 5, 5], 8, [3, 3, 2]),
            ([1, 9, 9], 8, [1, 4, 3]),
            ([9, 1, 9, 2], 12, [5, 1, 4, 2]),
            ([5, 5, 5], 2, [1, 1, 0]),
            ([5, 5], 0, [0, 0]),
        ],
    )
    def test_shares(self, wanted: list[int], budget: int, shares: list[int]) -> None:
        assert fair_shares(wanted, budget) == shares

    @given(st.lists(st.integers(1, 50), max_size=8), st.integers(0, 100))
    def test_nobody_gets_more_while_someone_with_less_wants_more(
        self, wanted: list[int], budget: int
    ) -> None:
        shares = fair_shares(wanted, budget)
        assert sum(shares) == min(budget, sum(wanted))
        assert all(0 <= share <= want for share, want in zip(shares, wanted, strict=True))
        unsatisfied = [share for share, want in zip(shares, wanted, strict=True) if share < want]
        assert all(max(shares) <= share + 1 for share in unsatisfied)
        # The first is never left out.
        assert not shares or not budget or shares[0]


def order(line: WaitingLine, count: int) -> list[object]:
    """Lets so many depart."""
    departed = []
    for _ in range(count):
        first = next(iter(line))
        line.depart(first)
        departed.append(first.request.key)
    return departed


class TestWaitingLine:
    def test_first_come_first_served(self) -> None:
        line = WaitingLine()
        for key in "abc":
            line.join(sequence(key))
        assert order(line, 2) == ["a", "b"]
        line.join(sequence("d"))
        assert order(line, 2) == ["c", "d"]

    def test_higher_priority_comes_first(self) -> None:
        line = WaitingLine()
        for key, priority in (("a", 0), ("b", 2), ("c", -1), ("d", 2)):
            line.join(sequence(key, priority=priority))
        assert order(line, 4) == ["b", "d", "a", "c"]

    def test_a_request_of_many_choices_does_not_hold_up_the_next(self) -> None:
        line = WaitingLine()
        for each in choices("many", count=128):
            line.join(each)
        assert order(line, 4) == ["many"] * 4
        for key in "ab":
            line.join(sequence(key))
        assert {"a", "b"} <= set(order(line, 4))

    def test_two_requests_of_many_choices_take_turns(self) -> None:
        line = WaitingLine()
        for key in "ab":
            for each in choices(key, count=50):
                line.join(each)
        departed = order(line, 40)
        assert departed.count("a") == departed.count("b") == 20

    def test_later_requests_do_not_starve_a_choice(self) -> None:
        line = WaitingLine()
        for each in choices("many", count=10):
            line.join(each)
        departed: list[object] = []
        for number in range(60):
            line.join(sequence(str(2 * number)))
            line.join(sequence(str(2 * number + 1)))
            departed += order(line, 2)
        assert departed.count("many") == 10

    def test_who_comes_back_goes_to_the_front_in_the_order_it_had(self) -> None:
        line = WaitingLine()
        made = [sequence(key) for key in "abcd"]
        for each in made:
            line.join(each)
        for each in made[:3]:
            line.depart(each)
        for each in (made[1], made[0]):
            line.put_back(each)
        line.join(sequence("e"))
        assert order(line, 4) == ["a", "b", "d", "e"]

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=20))
    def test_everybody_departs_and_the_order_is_that_of_the_ranks(
        self, requests: list[tuple[int, int]]
    ) -> None:
        line = WaitingLine()
        for number, (priority, count) in enumerate(requests):
            for each in choices(str(number), count=count, priority=priority):
                line.join(each)
            if number % 3 == 2:
                line.depart(next(iter(line)))
        ranks = [each.rank for each in line]
        assert ranks == sorted(ranks)
        assert len(order(line, len(line))) == len(ranks)
        assert not len(line)


class TestBetweenRequests:
    def test_a_later_request_runs_before_the_rest_of_many_choices(self) -> None:
        scheduler = scheduler_of(slots=2)
        many = choices("many", 3, count=20)
        for each in many:
            scheduler.add(each)
        step(scheduler)
        scheduler.add(sequence("one", 3))
        for each in many[:2]:
            scheduler.remove(each)
        assert ("one", 3) in step(scheduler)
