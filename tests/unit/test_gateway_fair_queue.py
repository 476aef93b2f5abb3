"""Whose turn it is among those that wait."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.relay.caller import Caller
from services.gateway.relay.drain_rate import MAX_RETRY_AFTER_S, MIN_RETRY_AFTER_S, DrainRate
from services.gateway.relay.fair_queue import FairQueue, Waiting
from services.gateway.relay.fair_shares import FORGET_BEYOND


def waiting(
    identity: str = "a",
    *,
    user: str = "",
    weight: float = 1.0,
    priority: int = 0,
    cost: float = 1.0,
) -> Waiting:
    return Waiting(Caller(identity, user, weight), priority, cost)


def fill(queue: FairQueue, *requests: Waiting) -> None:
    for each in requests:
        queue.push(each)


def drain(queue: FairQueue) -> list[Waiting]:
    out = []
    while (taken := queue.pop()) is not None:
        out.append(taken)
    return out


def identities(requests: list[Waiting]) -> str:
    return "".join(each.caller.identity for each in requests)


def test_one_user_is_served_in_order() -> None:
    queue = FairQueue()
    requests = [waiting() for _ in range(5)]
    fill(queue, *requests)
    assert drain(queue) == requests
    assert queue.pop() is None


def test_who_asks_much_waits_behind_itself() -> None:
    queue = FairQueue()
    fill(queue, *(waiting("a") for _ in range(6)), waiting("b"), waiting("c"))
    assert identities(drain(queue)) == "abcaaaaa"


def test_a_caller_that_was_away_has_saved_nothing_up() -> None:
    queue = FairQueue()
    fill(queue, *(waiting("a") for _ in range(10)))
    for _ in range(8):
        queue.pop()
    fill(queue, *(waiting("b") for _ in range(4)))
    assert identities(drain(queue))[:4] in {"abab", "baba"}


def test_weights_share_tokens() -> None:
    queue = FairQueue()
    for _ in range(300):
        fill(queue, waiting("a", weight=3.0, cost=10), waiting("b", weight=1.0, cost=10))
    first = Counter(identities([taken for _ in range(200) if (taken := queue.pop())]))
    assert abs(first["a"] - 150) <= 2


def test_large_requests_count_for_more() -> None:
    queue = FairQueue()
    fill(queue, *(waiting("a", cost=100) for _ in range(50)))
    fill(queue, *(waiting("b", cost=10) for _ in range(500)))
    first = Counter(identities([taken for _ in range(110) if (taken := queue.pop())]))
    assert abs(first["a"] - 10) <= 1


def test_users_share_their_callers_part_and_no_more() -> None:
    queue = FairQueue()
    for index in range(60):
        fill(queue, waiting("many", user=f"invented-{index}"), waiting("one", user="honest"))
    first = [taken for _ in range(60) if (taken := queue.pop())]
    assert abs(identities(first).count("one") - 30) <= 1
    queue = FairQueue()
    fill(queue, *(waiting(user="busy") for _ in range(6)), waiting(user="quiet"))
    assert [each.caller.user for each in drain(queue)][:2] == ["busy", "quiet"]


def test_priority_orders_the_requests_of_one_caller_only() -> None:
    queue = FairQueue()
    fill(
        queue,
        waiting("a", priority=0),
        waiting("b", priority=0),
        waiting("a", priority=9),
        waiting("a", priority=-1),
        waiting("a", priority=9, user="other"),
    )
    order = [(each.caller.identity, each.priority) for each in drain(queue)]
    assert [priority for identity, priority in order if identity == "a"] == [9, 9, 0, -1]
    assert order.index(("b", 0)) <= 1


def test_what_is_removed_is_not_served() -> None:
    queue = FairQueue()
    first, second, third = waiting("a"), waiting("a"), waiting("b")
    fill(queue, first, second, third)
    queue.remove(first)
    queue.remove(first)
    assert len(queue) == 2
    assert queue.length_of(first.caller) == 1
    assert set(map(id, drain(queue))) == {id(second), id(third)}
    queue.remove(second)
    assert len(queue) == 0


def test_the_longest_line_gives_up_its_last() -> None:
    queue = FairQueue()
    assert queue.last_of_longest() is None
    low = waiting("a", priority=-5)
    fill(queue, waiting("a"), low, waiting("a"), waiting("b"), waiting("b"))
    assert queue.last_of_longest() is low
    queue.remove(low)
    new = waiting("a", user="new")
    fill(queue, new)
    newest = queue.last_of_longest()
    assert newest is not None
    assert newest.caller.user != "new", "two of another user wait"
    queue.remove(newest)
    newer = waiting("a", user="newer")
    fill(queue, newer)
    assert queue.last_of_longest() is newer
    queue.remove(newer)
    queue.remove(new)
    fill(queue, waiting("a"))
    fill(queue, *(waiting("heavy", weight=10.0) for _ in range(6)))
    last = queue.last_of_longest()
    assert last is not None
    assert last.caller.identity in {"a", "b"}


def test_callers_that_have_gone_are_forgotten() -> None:
    queue = FairQueue()
    for index in range(10 * FORGET_BEYOND):
        fill(queue, waiting(f"caller-{index}"))
        queue.pop()
    assert len(queue._callers._shares) <= 2 * FORGET_BEYOND + 2


operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("push"),
            st.sampled_from("abc"),
            st.sampled_from("xy"),
            st.integers(-1, 1),
            st.floats(0.5, 100),
        ),
        st.just("pop"),
        st.tuples(st.just("remove"), st.integers(0, 50)),
    ),
    max_size=80,
)


@given(operations=operations)
def test_everyone_leaves_exactly_once_and_priorities_hold(operations: list[object]) -> None:
    queue = FairQueue()
    inside: list[Waiting] = []
    for operation in operations:
        match operation:
            case ("push", str(identity), str(user), int(priority), float(cost)):
                one = waiting(identity, user=user, priority=priority, cost=cost)
                queue.push(one)
                inside.append(one)
            case "pop":
                taken = queue.pop()
                assert (taken is None) == (not inside)
                if taken is not None:
                    inside.remove(taken)
                    mates = [
                        each for each in inside if each.caller.identity == taken.caller.identity
                    ]
                    assert all(each.priority <= taken.priority for each in mates)
            case ("remove", int(index)) if inside:
                queue.remove(inside.pop(index % len(inside)))
        assert len(queue) == len(inside)
    assert Counter(map(id, drain(queue))) == Counter(map(id, inside))


@given(
    costs=st.lists(st.floats(1, 50), min_size=20, max_size=60),
    weights=st.tuples(st.floats(0.5, 4), st.floats(0.5, 4)),
)
def test_the_service_of_two_who_always_wait_differs_by_a_request_each(
    costs: list[float], weights: tuple[float, float]
) -> None:
    """The fairness theorem of the paper: the difference is at most one largest request of each."""
    queue = FairQueue()
    for cost in costs:
        fill(queue, waiting("a", weight=weights[0], cost=cost))
        fill(queue, waiting("b", weight=weights[1], cost=cost))
    served = {"a": 0.0, "b": 0.0}
    bound = max(costs) / weights[0] + max(costs) / weights[1]
    left = {"a": len(costs), "b": len(costs)}
    while all(left.values()):
        taken = queue.pop()
        assert taken is not None
        name = taken.caller.identity
        left[name] -= 1
        served[name] += taken.cost_tokens / taken.caller.weight
        if all(left.values()):
            assert abs(served["a"] - served["b"]) <= bound + 1e-6


class TestDrainRate:
    def test_it_is_what_was_counted(self) -> None:
        rate = DrainRate()
        for step in range(400):
            rate.count(100.0 + step / 20)
        assert rate.per_second(120.0) == pytest.approx(20, rel=0.02)
        assert rate.wait_s(100, 120.0) == pytest.approx(5, rel=0.02)

    def test_it_is_right_soon_after_the_first(self) -> None:
        rate = DrainRate()
        for step in range(11):
            rate.count(100.0 + step / 10)
        assert rate.per_second(101.0) == pytest.approx(10, rel=0.06)

    def test_it_fades_when_nothing_leaves(self) -> None:
        rate = DrainRate()
        for step in range(400):
            rate.count(100.0 + step / 20)
        now = rate.per_second(140.0)
        assert now is not None
        assert now < 20 * math.exp(-1.9)

    def test_the_wait_has_limits(self) -> None:
        rate = DrainRate()
        assert rate.wait_s(10_000, 5.0) == MIN_RETRY_AFTER_S
        rate.count(5.0)
        assert rate.wait_s(10_000, 5.0) == MIN_RETRY_AFTER_S
        rate.count(6.0)
        assert rate.wait_s(0, 6.0) == MIN_RETRY_AFTER_S
        assert rate.wait_s(10_000, 6.0) == MAX_RETRY_AFTER_S
        assert rate.wait_s(10_000, 1e6) == MAX_RETRY_AFTER_S
