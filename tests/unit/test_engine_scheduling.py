"""The pure parts of the transformers engine: who runs, who waits, what memory there is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mesh.errors import InvalidRequestError, QueueFullError, StartError
from services.worker.engines.base import Sampling
from services.worker.engines.detokenizer import ByteDetokenizer
from services.worker.engines.transformers.checkpoint.memory import (
    LayerShape,
    MemoryPlan,
    plan_memory,
)
from services.worker.engines.transformers.scheduling.places import Places
from services.worker.engines.transformers.scheduling.scheduler import Scheduler, Work
from services.worker.engines.transformers.scheduling.sequence import Request, Sequence
from services.worker.engines.transformers.text.output import Output


def sequence(
    key: str,
    prompt_tokens: int = 5,
    *,
    priority: int = 0,
    credit_tokens: int | None = None,
    deadline_s: float | None = None,
) -> Sequence:
    prompt_ids = tuple(range(prompt_tokens))
    sampling = Sampling()
    request = Request(key, key, prompt_ids, "", sampling, deadline_s, priority, 0.0)
    output = Output(ByteDetokenizer(lambda _: b""), sampling, 1000, frozenset())
    return Sequence(request, 0, output, credit_tokens)


def compute(step: list[Work]) -> list[Any]:
    """Does what a step does to its sequences. Returns who computed how much."""
    done = [(work.sequence.request.key, work.tokens) for work in step]
    for work in step:
        samples = work.samples
        work.sequence.computed_tokens += work.tokens
        if samples:
            work.sequence.output.take(1)
    return done


class TestScheduler:
    def test_a_prompt_is_computed_then_decoded(self) -> None:
        scheduler = Scheduler(slots=2, step_tokens=100)
        scheduler.add(sequence("a"))
        assert [compute(scheduler.schedule()) for _ in range(3)] == [
            [("a", 5)],
            [("a", 1)],
            [("a", 1)],
        ]

    def test_a_long_prompt_comes_in_pieces_beside_decoding_ones(self) -> None:
        scheduler = Scheduler(slots=2, step_tokens=4)
        scheduler.add(sequence("short", 2))
        compute(scheduler.schedule())
        scheduler.add(sequence("long", 9))
        steps = [compute(scheduler.schedule()) for _ in range(4)]
        assert steps == [
            [("short", 1), ("long", 4)],
            [("short", 1), ("long", 4)],
            [("short", 1), ("long", 1)],
            [("short", 1), ("long", 1)],
        ]
        assert len(scheduler.running[1].output.token_ids) == 2

    def test_prompts_share_a_step_up_to_its_tokens(self) -> None:
        scheduler = Scheduler(slots=4, step_tokens=8)
        for key in "abc":
            scheduler.add(sequence(key, 5))
        assert compute(scheduler.schedule()) == [("a", 5), ("b", 3)]
        assert compute(scheduler.schedule()) == [("a", 1), ("b", 2), ("c", 5)]

    def test_who_has_no_slot_waits_for_the_first_that_is_free(self) -> None:
        scheduler = Scheduler(slots=2, step_tokens=100)
        sequences = [sequence(key) for key in "abc"]
        for each in sequences:
            scheduler.add(each)
        compute(scheduler.schedule())
        assert scheduler.waiting_count == 1
        scheduler.remove(sequences[0])
        assert compute(scheduler.schedule()) == [("b", 1), ("c", 5)]
        assert sequences[2].slot == 0

    def test_priority_comes_first_then_arrival(self) -> None:
        scheduler = Scheduler(slots=1, step_tokens=100)
        for key, priority in (("a", 0), ("b", 0), ("c", 2), ("d", 2), ("e", -1)):
            scheduler.add(sequence(key, priority=priority))
        order = []
        for _ in range(5):
            compute(scheduler.schedule())
            order.append(scheduler.running[0].request.key)
            scheduler.remove(scheduler.running[0])
        assert order == ["c", "d", "a", "b", "e"]

    def test_a_sequence_without_credit_rests_in_its_slot(self) -> None:
        scheduler = Scheduler(slots=2, step_tokens=100)
        resting = sequence("a", credit_tokens=0)
        scheduler.add(resting)
        scheduler.add(sequence("b"))
        assert compute(scheduler.schedule()) == [("a", 5), ("b", 5)]
        assert compute(scheduler.schedule()) == [("b", 1)]
        resting.credit_tokens = 1
        assert compute(scheduler.schedule()) == [("a", 1), ("b", 1)]

    def test_decoding_sequences_come_by_rising_slot(self) -> None:
        scheduler = Scheduler(slots=3, step_tokens=100)
        sequences = [sequence(key) for key in "abcd"]
        for each in sequences:
            scheduler.add(each)
        compute(scheduler.schedule())
        scheduler.remove(sequences[0])
        compute(scheduler.schedule())
        assert [work.sequence.slot for work in scheduler.schedule()] == [0, 1, 2]

    def test_deadlines(self) -> None:
        scheduler = Scheduler(slots=1, step_tokens=100)
        early, late, never = (
            sequence("a", deadline_s=5.0),
            sequence("b", deadline_s=9.0),
            sequence("c"),
        )
        for each in (never, late, early):
            scheduler.add(each)
        assert scheduler.next_deadline_s() == 5.0
        assert scheduler.late(4.9) == []
        assert scheduler.late(5.0) == [early]
        for each in (early, late):
            scheduler.remove(each)
        assert scheduler.next_deadline_s() is None

    @given(
        st.integers(1, 4),
        st.integers(1, 12),
        st.lists(st.tuples(st.integers(1, 20), st.integers(1, 6)), max_size=12),
    )
    def test_everyone_gets_through_and_slots_are_never_shared(
        self, slots: int, step_tokens: int, lengths: list[tuple[int, int]]
    ) -> None:
        scheduler = Scheduler(slots, step_tokens)
        wanted: dict[Any, int] = {}
        for number, (prompt_tokens, output_tokens) in enumerate(lengths):
            scheduler.add(sequence(str(number), prompt_tokens))
            wanted[str(number)] = output_tokens
        for _ in range(1000):
            step = scheduler.schedule()
            if not step:
                break
            used = [each.slot for each in scheduler.running]
            assert len(set(used)) == len(used) <= slots
            assert sum(work.tokens for work in step if work.tokens > 1) <= step_tokens
            compute(step)
            for each in list(scheduler.running):
                if len(each.output.token_ids) == wanted[each.request.key]:
                    scheduler.remove(each)
                    del wanted[each.request.key]
        assert not wanted


class TestSequence:
    @given(st.integers(0, 9), st.integers(0, 9))
    def test_its_tokens_are_prompt_then_output(self, start: int, end: int) -> None:
        made = sequence("a", 4)
        for token_id in (10, 11, 12):
            made.output.take(token_id)
        start, end = min(start, end), min(max(start, end), 7)
        assert made.token_ids(min(start, end), end) == [0, 1, 2, 3, 10, 11, 12][start:end]


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


LAYERS = [LayerShape(layer, kv_heads=2, key_size=8, value_size=8) for layer in range(4)]
TOKEN_BYTES = 4 * 2 * 16 * 4


def plan(budget_tokens: int, **changes: Any) -> MemoryPlan:
    arguments: dict[str, Any] = {
        "max_running": 32,
        "model_context_tokens": 1000,
        "context_length_tokens": None,
    }
    return plan_memory(
        LAYERS, value_bytes=4, budget_bytes=budget_tokens * TOKEN_BYTES, **arguments | changes
    )


class TestMemoryPlan:
    def test_no_more_is_taken_than_max_running_needs(self) -> None:
        assert plan(10**6) == MemoryPlan(32, 1000, TOKEN_BYTES)
        assert plan(10**6).total_bytes == 32_000 * TOKEN_BYTES

    def test_less_memory_takes_slots_first(self) -> None:
        assert plan(20_000) == MemoryPlan(20, 1000, TOKEN_BYTES)

    def test_then_it_takes_from_the_context(self) -> None:
        assert plan(4000) == MemoryPlan(8, 500, TOKEN_BYTES)
        assert plan(4000, max_running=2) == MemoryPlan(2, 1000, TOKEN_BYTES)

    def test_a_context_that_was_asked_for_is_kept(self) -> None:
        assert plan(2000, context_length_tokens=900) == MemoryPlan(2, 900, TOKEN_BYTES)
        with pytest.raises(StartError, match="lower context_length_tokens or raise"):
            plan(800, context_length_tokens=900)

    def test_a_context_beyond_the_models_is_refused(self) -> None:
        with pytest.raises(StartError, match="made for 1,000"):
            plan(10**6, context_length_tokens=1001)

    def test_nothing_is_too_little(self) -> None:
        with pytest.raises(StartError):
            plan(0)

    def test_the_table_has_the_figures_under_their_names(self) -> None:
        head, row = plan(20_000).table("cpu", 3 * 1024 * 1024).splitlines()
        assert head.split("  ")[0].strip() == "device"
        assert len(head) == len(row)
        assert row.split()[:3] == ["cpu", "3", "MiB"]
        assert row.endswith(str(TOKEN_BYTES))
