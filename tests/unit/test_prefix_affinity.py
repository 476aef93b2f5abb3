"""Prefix affinity: stable, bounded, and the same in every gateway."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.requests.prompt_head import prompt_keys
from services.gateway.routing.base import Candidate, RoutingRequest
from services.gateway.routing.prefix import LEADING_BYTES, MAX_HEAD_BYTES, prefix_keys
from services.gateway.routing.prefix_affinity import (
    MAX_HOT_PREFIXES,
    AffinityOutcome,
    AffinityTuning,
    PrefixAffinity,
)
from services.gateway.routing.rendezvous import home, ranked
from tokenmesh.mesh.v1 import chat_pb2
from tokenmesh.worker.v1 import worker_pb2

CONVERSATIONS = 500
keys = st.integers(0, 2**64 - 1)
fleets = st.lists(
    st.text("abcdefghij0123456789-", min_size=1, max_size=12), min_size=2, max_size=12, unique=True
).map(sorted)


def idle(worker_ids: list[str], speed: float = 1.0) -> list[Candidate]:
    return [Candidate(worker_id, 0, speed) for worker_id in worker_ids]


def homes(worker_ids: list[str]) -> list[str]:
    """Where each of many conversations lives."""
    return [
        home(key * 0x9E3779B97F4A7C15 % 2**64, idle(worker_ids)).worker_id
        for key in range(CONVERSATIONS)
    ]


@given(worker_ids=fleets, gone=st.integers(0, 11))
def test_a_lost_worker_moves_its_own_conversations_and_no_other(
    worker_ids: list[str], gone: int
) -> None:
    lost = worker_ids[gone % len(worker_ids)]
    before = homes(worker_ids)
    after = homes([each for each in worker_ids if each != lost])
    for was, now in zip(before, after, strict=True):
        assert now != lost
        assert was in {now, lost}


@given(worker_ids=fleets)
def test_a_new_worker_takes_about_its_share_and_moves_nothing_else(worker_ids: list[str]) -> None:
    new = "new-worker-z"
    before, after = homes(worker_ids), homes(sorted([*worker_ids, new]))
    for was, now in zip(before, after, strict=True):
        assert now in {was, new}
    share = CONVERSATIONS / (len(worker_ids) + 1)
    assert abs(after.count(new) - share) < 6 * math.sqrt(share)


def test_homes_follow_speed() -> None:
    candidates = [Candidate("slow", 0, 1.0), Candidate("fast", 0, 3.0)]
    random = Random(1)
    counts = Counter(home(random.getrandbits(64), candidates).worker_id for _ in range(4000))
    assert 2850 < counts["fast"] < 3150


@given(key=keys, worker_ids=fleets, seed=st.integers())
def test_the_order_of_candidates_does_not_matter(
    key: int, worker_ids: list[str], seed: int
) -> None:
    candidates = idle(worker_ids)
    shuffled = Random(seed).sample(candidates, len(candidates))
    assert ranked(key, candidates) == ranked(key, shuffled)
    assert home(key, shuffled) == ranked(key, candidates)[0]


loaded = st.lists(
    st.builds(
        Candidate,
        worker_id=st.text("abcdefgh", min_size=1, max_size=3),
        requests=st.integers(0, 60),
        speed=st.floats(0.1, 10),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda candidate: candidate.worker_id,
).map(sorted)


@given(candidates=loaded, prefix=st.lists(keys, min_size=1, max_size=4), factor=st.floats(1.01, 3))
def test_no_worker_goes_beyond_the_bound(
    candidates: list[Candidate], prefix: list[int], factor: float
) -> None:
    tuning = AffinityTuning(load_factor=factor, free_requests=2)
    chosen = PrefixAffinity(tuning).choose(RoutingRequest(prefix), candidates, Random())
    requests = sum(each.requests for each in candidates) + 1
    speed = sum(each.speed for each in candidates)
    bound = math.ceil(factor * requests * chosen.speed / speed)
    assert chosen.requests + 1 <= max(2, bound)


@given(
    worker_ids=fleets,
    turns=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60),
    seeds=st.tuples(st.integers(), st.integers()),
)
def test_every_gateway_chooses_the_same(
    worker_ids: list[str], turns: list[tuple[int, int]], seeds: tuple[int, int]
) -> None:
    """Two gateways that see the same load, whatever randomness they have."""
    first, second = PrefixAffinity(), PrefixAffinity()
    requests = dict.fromkeys(worker_ids, 0)
    for group, conversation in turns:
        candidates = [Candidate(each, requests[each], 1.0) for each in worker_ids]
        request = RoutingRequest((group, 1000 * group + conversation))
        chosen = first.choose(request, candidates, Random(seeds[0]))
        assert second.choose(request, candidates, Random(seeds[1])) == chosen
        requests[chosen.worker_id] += 1


class Fleet:
    """Workers whose requests are counted, and a policy in front of them."""

    def __init__(self, *worker_ids: str, tuning: AffinityTuning | None = None) -> None:
        self.requests = dict.fromkeys(worker_ids, 0)
        self.outcomes: Counter[AffinityOutcome] = Counter()
        self.now_s = 0.0
        self._policy = PrefixAffinity(tuning, observe=lambda each: self.outcomes.update([each]))

    def send(self, *prefix: int) -> str:
        candidates = [Candidate(each, self.requests[each], 1.0) for each in self.requests]
        request = RoutingRequest(prefix, self.now_s)
        chosen = self._policy.choose(request, candidates, Random()).worker_id
        self.requests[chosen] += 1
        return chosen

    def end_all(self) -> None:
        self.requests = dict.fromkeys(self.requests, 0)


def test_a_conversation_comes_back_while_its_worker_has_room() -> None:
    fleet = Fleet("a", "b", "c")
    workers = set()
    for _ in range(20):
        workers.add(fleet.send(1, 7))
        fleet.end_all()
    assert len(workers) == 1
    assert fleet.outcomes == {AffinityOutcome.HOME: 20}


def test_equal_prompts_spread_over_more_workers_as_load_demands() -> None:
    fleet = Fleet("a", "b", "c", "d")
    order = [each.worker_id for each in ranked(7, idle(["a", "b", "c", "d"]))]
    seen: list[str] = []
    for _ in range(400):
        worker = fleet.send(7)
        if worker not in seen:
            seen.append(worker)
    assert seen == order
    assert max(fleet.requests.values()) <= math.ceil(1.25 * 400 / 4)
    assert fleet.outcomes[AffinityOutcome.SPILL] > 0


def test_a_hot_prefix_spreads_by_conversation_and_each_stays_where_it_is() -> None:
    fleet = Fleet("a", "b", "c")
    for conversation in range(100, 160):
        fleet.send(1, conversation)
    assert all(count for count in fleet.requests.values())
    fleet.end_all()
    first = {conversation: fleet.send(1, conversation) for conversation in range(100, 104)}
    fleet.end_all()
    assert {conversation: fleet.send(1, conversation) for conversation in first} == first
    assert fleet.outcomes[AffinityOutcome.NONE] == 0


def test_a_prefix_that_nobody_asks_for_cools() -> None:
    fleet = Fleet("a", "b", "c", tuning=AffinityTuning(cool_after_s=10.0))
    at_home = fleet.send(1, 100)
    for conversation in range(100, 160):
        fleet.send(1, conversation)
    fleet.end_all()
    away = next(
        each for each in range(100, 160) if home(each, idle(["a", "b", "c"])).worker_id != at_home
    )
    fleet.now_s = 9.0
    assert fleet.send(1, away) != at_home
    fleet.end_all()
    fleet.now_s = 18.0
    assert fleet.send(1, away) != at_home, "it was asked for nine seconds ago"
    fleet.end_all()
    fleet.now_s = 29.0
    assert fleet.send(1, away) == at_home


def test_hot_prefixes_are_bounded() -> None:
    policy = PrefixAffinity(AffinityTuning(free_requests=1))
    candidates = [Candidate("a", 1, 1.0), Candidate("b", 1, 1.0)]
    busy = [Candidate("a", 1000, 1.0), Candidate("b", 0, 1.0)]
    for key in range(2 * MAX_HOT_PREFIXES):
        policy.choose(RoutingRequest((key, key + 1)), busy, Random())
        policy.choose(RoutingRequest((key, key + 1)), candidates, Random())
    assert len(policy._hot_until_s) <= MAX_HOT_PREFIXES


def test_without_a_prefix_the_shortest_queue_is_taken() -> None:
    fleet = Fleet("a", "b")
    fleet.requests["a"] = 3
    assert fleet.send() == "b"
    assert fleet.outcomes == {AffinityOutcome.NONE: 1}


class TestKeys:
    @pytest.mark.parametrize("length", [0, 1, 1023, 1024, 1025, 4096, 20_000, 200_000])
    def test_they_stand_for_whole_chunks(self, length: int) -> None:
        head = bytes(index * 31 % 251 for index in range(length))
        whole = prefix_keys(head, is_whole=True)
        growing = prefix_keys(head, is_whole=False)
        chunks = sum(end <= length for end in LEADING_BYTES)
        assert len(growing) == max(1, chunks)
        assert whole[: len(growing)] == growing
        assert len(set(whole)) == len(whole) <= len(LEADING_BYTES) + 1

    def test_what_grows_keeps_its_keys(self) -> None:
        short = prefix_keys(b"a" * 5000, is_whole=False)
        assert prefix_keys(b"a" * 5000 + b"b" * 200, is_whole=False) == short
        assert prefix_keys(b"a" * 5000 + b"b" * 20_000, is_whole=False)[: len(short)] == short

    def test_what_differs_later_shares_the_keys_before(self) -> None:
        first = prefix_keys(b"s" * 1500 + b"one", is_whole=True)
        second = prefix_keys(b"s" * 1500 + b"two", is_whole=True)
        assert first[0] == second[0]
        assert first[1] != second[1]

    def test_nothing_beyond_the_longest_head_counts(self) -> None:
        head = b"x" * MAX_HEAD_BYTES
        assert prefix_keys(head + b"a", is_whole=True) == prefix_keys(head + b"b", is_whole=True)


def chat(*texts: str, model: str = "m") -> worker_pb2.Start:
    """A conversation: a system message, then users and assistants in turn."""
    start = worker_pb2.Start(model=model)
    start.chat.messages.add(role=chat_pb2.ROLE_SYSTEM).content.add(text="Be brief.")
    for index, text in enumerate(texts):
        role = chat_pb2.ROLE_ASSISTANT if index % 2 else chat_pb2.ROLE_USER
        start.chat.messages.add(role=role).content.add(text=text)
    return start


class TestPromptKeys:
    def test_a_conversation_has_the_same_keys_in_each_turn(self) -> None:
        first = prompt_keys(chat("Hello"))
        assert prompt_keys(chat("Hello", "Hi!", "How are you?")) == first
        assert prompt_keys(chat("Hello there")) != first

    def test_long_conversations_share_the_key_of_their_beginning(self) -> None:
        system = "You are helpful. " * 100
        first, second = chat("one"), chat("two")
        for start in (first, second):
            start.chat.messages[0].content[0].text = system
        one, two = prompt_keys(first), prompt_keys(second)
        assert one[0] == two[0]
        assert one[-1] != two[-1]

    def test_another_model_or_tool_is_another_prefix(self) -> None:
        with_tool = chat("Hello")
        with_tool.chat.tools.add(name="search")
        assert (
            len(
                {
                    prompt_keys(chat("Hello")),
                    prompt_keys(chat("Hello", model="n")),
                    prompt_keys(with_tool),
                }
            )
            == 3
        )

    def test_raw_prompts_have_keys_of_text_or_of_token_ids(self) -> None:
        text = worker_pb2.Start(model="m", text="word " * 500)
        longer = worker_pb2.Start(model="m", text="word " * 500 + "and more")
        assert prompt_keys(text) == prompt_keys(longer)
        ids = worker_pb2.Start(model="m")
        ids.token_ids.values.extend(range(400))
        more_ids = worker_pb2.Start(model="m")
        more_ids.token_ids.values.extend(range(450))
        assert prompt_keys(ids) == prompt_keys(more_ids) != prompt_keys(text)
        other = worker_pb2.Start(model="m")
        other.token_ids.values.extend(range(1, 401))
        assert prompt_keys(other) != prompt_keys(ids)

    def test_an_image_is_part_of_the_prefix(self) -> None:
        first, second = chat("Look"), chat("Look")
        first.chat.messages[-1].content.add().image.data = b"one"
        second.chat.messages[-1].content.add().image.data = b"two"
        assert prompt_keys(first) != prompt_keys(second)

    def test_the_pairs_of_messages_and_texts_cannot_be_shifted(self) -> None:
        joined, split = chat("ab"), chat("a")
        split.chat.messages[-1].content.add(text="b")
        assert prompt_keys(joined) != prompt_keys(split)
