"""Routing policies, by table and by property."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.routing import DEFAULT_POLICY, POLICIES
from services.gateway.routing.base import (
    Candidate,
    RoutingRequest,
    estimate_requests,
    free_places,
    running_limit,
)
from services.gateway.routing.least_latency import LeastLatency
from services.gateway.routing.lottery import Lottery
from services.gateway.routing.power_of_two import PowerOfTwo
from services.gateway.routing.random_choice import RandomChoice
from services.gateway.routing.round_robin import RoundRobin
from services.gateway.routing.shortest_queue import ShortestQueue, queue_length

REQUEST = RoutingRequest((1, 2), 0.0)

candidates = st.lists(
    st.builds(
        Candidate,
        worker_id=st.text("abcdefgh", min_size=1, max_size=3),
        requests=st.integers(0, 50),
        speed=st.floats(0.1, 10),
        latency_s=st.floats(0, 100),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda candidate: candidate.worker_id,
).map(sorted)


def named(*requests: float, speeds: tuple[float, ...] = ()) -> list[Candidate]:
    """Candidates a, b, c … with so many requests each."""
    return [
        Candidate(name, count, speeds[index] if speeds else 1.0)
        for index, (name, count) in enumerate(zip("abcdef", requests, strict=False))
    ]


@pytest.mark.parametrize("name", sorted(POLICIES))
@given(candidates=candidates, seed=st.integers())
def test_every_policy_chooses_one_of_the_candidates(
    name: str, candidates: list[Candidate], seed: int
) -> None:
    policy, random = POLICIES[name](), Random(seed)
    for _ in range(3):
        assert policy.choose(REQUEST, candidates, random) in candidates


def test_the_default_policy_exists() -> None:
    assert DEFAULT_POLICY in POLICIES


@given(candidates=candidates, seed=st.integers())
def test_shortest_queue_never_passes_over_a_shorter_one(
    candidates: list[Candidate], seed: int
) -> None:
    chosen = ShortestQueue().choose(REQUEST, candidates, Random(seed))
    assert queue_length(chosen) == min(queue_length(each) for each in candidates)


@pytest.mark.parametrize(
    ("requests", "speeds", "allowed"),
    [
        ((3, 1, 2), (), {"b"}),
        ((1, 1, 2), (), {"a", "b"}),
        ((0, 0, 0), (), {"a", "b", "c"}),
        ((4, 3), (2, 1), {"a"}),
        ((4, 1), (2, 1), {"b"}),
    ],
)
def test_shortest_queue_by_table(
    requests: tuple[float, ...], speeds: tuple[float, ...], allowed: set[str]
) -> None:
    random = Random(1)
    chosen = {
        ShortestQueue().choose(REQUEST, named(*requests, speeds=speeds), random).worker_id
        for _ in range(100)
    }
    assert chosen == allowed


@given(candidates=candidates, seed=st.integers())
def test_power_of_two_never_takes_the_longest_of_different_queues(
    candidates: list[Candidate], seed: int
) -> None:
    chosen = PowerOfTwo().choose(REQUEST, candidates, Random(seed))
    longer = [each for each in candidates if queue_length(each) >= queue_length(chosen)]
    assert len(longer) >= min(2, len(candidates))


def test_power_of_two_draws_every_pair() -> None:
    random = Random(1)
    chosen = Counter(
        PowerOfTwo().choose(REQUEST, named(0, 1, 2, 3), random).worker_id for _ in range(6000)
    )
    assert {name: round(count / 1000) for name, count in chosen.items()} == {"a": 3, "b": 2, "c": 1}


def test_round_robin_takes_each_in_turn_while_workers_come_and_go() -> None:
    policy, random = RoundRobin(), Random(1)
    turns = [named(0, 0, 0)] * 4 + [named(0, 0, 0)[1:]] * 2 + [named(0, 0, 0, 0)] * 2
    assert "".join(policy.choose(REQUEST, turn, random).worker_id for turn in turns) == "abcabcda"[
        :4
    ] + ("bc" + "da")


def test_lottery_draws_by_speed_whatever_the_load() -> None:
    random = Random(1)
    candidates = named(50, 0, speeds=(3, 1))
    chosen = Counter(Lottery().choose(REQUEST, candidates, random).worker_id for _ in range(4000))
    assert 2850 < chosen["a"] < 3150


def test_random_draws_evenly_whatever_the_load() -> None:
    random = Random(1)
    chosen = Counter(
        RandomChoice().choose(REQUEST, named(50, 0, 9), random).worker_id for _ in range(3000)
    )
    assert all(900 < count < 1100 for count in chosen.values())


@pytest.mark.parametrize(
    ("workers", "allowed"),
    [
        ([("a", 0, 0.2), ("b", 0, 0.1)], {"b"}),
        ([("a", 0, 0.2), ("b", 3, 0.1)], {"a"}),
        ([("a", 1, 0.1), ("b", 1, 0.1)], {"a", "b"}),
        ([("a", 0, 0.1), ("b", 0, 0.0)], {"b"}),
        ([("a", 0, 0.1), ("b", 2, 0.0)], {"a"}),
        ([("a", 2, 0.0), ("b", 1, 0.0)], {"b"}),
    ],
    ids=["faster", "faster but busy", "equal", "unknown", "unknown but busy", "nothing is known"],
)
def test_least_latency_by_table(workers: list[tuple[str, float, float]], allowed: set[str]) -> None:
    random = Random(1)
    candidates = [Candidate(name, count, 1.0, latency_s) for name, count, latency_s in workers]
    chosen = {LeastLatency().choose(REQUEST, candidates, random).worker_id for _ in range(100)}
    assert chosen == allowed


@pytest.mark.parametrize(
    ("in_flight", "reported", "in_flight_at_report", "expected"),
    [
        (0, 0, 0, 0),
        (5, 0, 0, 5),
        (5, 5, 5, 5),
        (2, 5, 5, 2),
        (7, 5, 5, 7),
        (1, 10, 4, 7),
        (0, 1, 4, 0),
    ],
    ids=[
        "idle",
        "sent since the report",
        "all reported are ours",
        "ours have ended since",
        "ours have come since",
        "others have six",
        "the report is older than ours",
    ],
)
def test_own_requests_are_counted_now_and_others_as_reported(
    in_flight: int, reported: int, in_flight_at_report: int, expected: int
) -> None:
    assert estimate_requests(in_flight, reported, in_flight_at_report) == expected


@pytest.mark.parametrize(
    ("requests", "limit", "free"),
    [(0, 8, 10), (9, 8, 1), (12, 8, -2), (0, 1, 2), (99, 0, math.inf)],
)
def test_a_worker_should_have_a_quarter_more_than_it_runs(
    requests: int, limit: int, free: float
) -> None:
    assert free_places(requests, limit) == free


@pytest.mark.parametrize(
    ("running", "waiting", "kv_used_share", "limit"),
    [(5, 3, 0.95, 5), (5, 0, 0.95, 32), (5, 3, 0.5, 32), (0, 3, 0.95, 32), (40, 3, 1.0, 32)],
    ids=["memory is full", "nobody waits", "a burst", "nothing runs", "more than it said"],
)
def test_a_worker_with_full_memory_runs_no_more_than_it_does(
    running: int, waiting: int, kv_used_share: float, limit: int
) -> None:
    assert running_limit(32, running, waiting, kv_used_share) == limit
