"""Who runs in a step, and how much of each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.sequences import scheduler_of, sequence, step


class TestScheduler:
    def test_a_prompt_is_computed_then_decoded(self) -> None:
        scheduler = scheduler_of(slots=2, step_tokens=100)
        scheduler.add(sequence("a"))
        assert [step(scheduler) for _ in range(3)] == [
            [("a", 5)],
            [("a", 1)],
            [("a", 1)],
        ]

    def test_a_long_prompt_comes_in_pieces_beside_decoding_ones(self) -> None:
        scheduler = scheduler_of(slots=2, step_tokens=4)
        scheduler.add(sequence("short", 2))
        step(scheduler)
        scheduler.add(sequence("long", 9))
        steps = [step(scheduler) for _ in range(4)]
        assert steps == [
            [("short", 1), ("long", 4)],
            [("short", 1), ("long", 4)],
            [("short", 1), ("long", 1)],
            [("short", 1), ("long", 1)],
        ]
        assert len(scheduler.running[1].output.token_ids) == 2

    def test_prompts_share_a_step_up_to_its_tokens(self) -> None:
        scheduler = scheduler_of(slots=4, step_tokens=8)
        for key in "abc":
            scheduler.add(sequence(key, 5))
        assert step(scheduler) == [("a", 3), ("b", 3), ("c", 2)]
        assert step(scheduler) == [("a", 2), ("b", 2), ("c", 3)]

    def test_who_has_no_slot_waits_for_the_first_that_is_free(self) -> None:
        scheduler = scheduler_of(slots=2, step_tokens=100)
        sequences = [sequence(key) for key in "abc"]
        for each in sequences:
            scheduler.add(each)
        step(scheduler)
        assert scheduler.waiting_count == 1
        scheduler.remove(sequences[0])
        assert step(scheduler) == [("b", 1), ("c", 5)]
        assert sequences[2].slot == 0

    def test_priority_comes_first_then_arrival(self) -> None:
        scheduler = scheduler_of(slots=1, step_tokens=100)
        for key, priority in (("a", 0), ("b", 0), ("c", 2), ("d", 2), ("e", -1)):
            scheduler.add(sequence(key, priority=priority))
        order = []
        for _ in range(5):
            step(scheduler)
            order.append(scheduler.running[0].request.key)
            scheduler.remove(scheduler.running[0])
        assert order == ["c", "d", "a", "b", "e"]

    def test_a_short_prompt_does_not_wait_behind_a_long_one(self) -> None:
        scheduler = scheduler_of(step_tokens=20)
        scheduler.add(sequence("long", 100))
        step(scheduler)
        scheduler.add(sequence("short", 8))
        assert step(scheduler) == [("long", 12), ("short", 8)]

    def test_a_prompt_of_higher_priority_takes_the_step_first(self) -> None:
        scheduler = scheduler_of(step_tokens=20)
        for key, priority in (("low", 0), ("high", 1), ("too", 1)):
            scheduler.add(sequence(key, 16, priority=priority))
        assert step(scheduler) == [("high", 10), ("too", 10)]
        assert step(scheduler) == [("high", 6), ("too", 6), ("low", 8)]

    def test_a_sequence_without_credit_rests_in_its_slot(self) -> None:
        scheduler = scheduler_of(slots=2, step_tokens=100)
        resting = sequence("a", credit_tokens=1)
        scheduler.add(resting)
        scheduler.add(sequence("b"))
        assert step(scheduler) == [("a", 5), ("b", 5)]
        assert step(scheduler) == [("b", 1)]
        resting.credit_tokens = 1
        assert step(scheduler) == [("a", 1), ("b", 1)]

    def test_decoding_sequences_come_by_rising_slot(self) -> None:
        scheduler = scheduler_of(slots=3, step_tokens=100)
        sequences = [sequence(key) for key in "abcd"]
        for each in sequences:
            scheduler.add(each)
        step(scheduler)
        scheduler.remove(sequences[0])
        step(scheduler)
        assert [work.sequence.slot for work in scheduler.schedule().works] == [0, 1, 2]

    def test_deadlines(self) -> None:
        scheduler = scheduler_of(slots=1, step_tokens=100)
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


class TestSequence:
    @given(st.integers(0, 9), st.integers(0, 9))
    def test_its_tokens_are_prompt_then_output(self, start: int, end: int) -> None:
        made = sequence("a", 4)
        for token_id in (10, 11, 12):
            made.output.take(token_id)
        start, end = sorted((min(start, 7), min(end, 7)))
        expected = [*made.request.prompt_ids, 10, 11, 12]
        assert made.token_ids(start, end) == expected[start:end]
