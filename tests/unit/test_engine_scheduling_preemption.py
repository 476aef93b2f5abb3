"""What happens when slots or blocks run out."""

from __future__ import annotations

import pytest

from services.worker.engines.transformers.scheduling.scheduler import Scheduler
from services.worker.engines.transformers.scheduling.sequence import Sequence
from tests.sequences import pool_of, scheduler_of, sequence, step


def started(scheduler: Scheduler, *sequences: Sequence) -> None:
    """Brings sequences to where each has its first token."""
    for each in sequences:
        scheduler.add(each)
    step(scheduler)
    assert all(each.output.token_ids for each in sequences)


class TestWaitingForBlocks:
    def test_a_prompt_waits_until_there_are_blocks_for_all_of_it_and_one_more(self) -> None:
        scheduler = scheduler_of(blocks=7)
        first = sequence("a", 6)
        started(scheduler, first)
        # Two blocks are taken, and the prompt fills all five others.
        scheduler.add(sequence("b", 17))
        assert step(scheduler) == [("a", 1)]
        scheduler.remove(first)
        assert step(scheduler) == [("b", 17)]

    def test_who_does_not_fit_is_not_passed(self) -> None:
        scheduler = scheduler_of(blocks=7)
        started(scheduler, sequence("a", 6))
        scheduler.add(sequence("large", 17))
        scheduler.add(sequence("small", 1))
        assert step(scheduler) == [("a", 1)]

    def test_one_alone_may_take_every_block(self) -> None:
        scheduler = scheduler_of(blocks=5)
        scheduler.add(sequence("a", 20))
        assert step(scheduler) == [("a", 20)]

    def test_blocks_that_a_running_prompt_will_need_are_not_given_away(self) -> None:
        scheduler = scheduler_of(blocks=8, step_tokens=4)
        scheduler.add(sequence("a", 20))
        assert step(scheduler) == [("a", 4)]
        scheduler.add(sequence("b", 12))
        assert [step(scheduler) for _ in range(4)] == [[("a", 4)]] * 4

    def test_cached_blocks_that_it_will_use_itself_are_no_room(self) -> None:
        scheduler = scheduler_of(blocks=8)
        first = sequence("first", range(12))
        started(scheduler, first)
        scheduler.remove(first)
        started(scheduler, sequence("a", 11))
        # Three blocks are found, three are taken, and two are left for two more.
        scheduler.add(sequence("b", range(20)))
        assert step(scheduler) == [("a", 1)]

    def test_cached_blocks_give_way(self) -> None:
        scheduler = scheduler_of(blocks=5)
        first = sequence("a", 16)
        started(scheduler, first)
        scheduler.remove(first)
        assert pool_of(scheduler).cached_blocks == 4
        scheduler.add(sequence("b", 20))
        assert step(scheduler) == [("b", 20)]
        assert scheduler.counts.preemptions == 0


class TestOutOfBlocks:
    @pytest.mark.parametrize(("prefix_cache", "computed_anew"), [(False, 9), (True, 1)])
    def test_the_youngest_is_computed_anew_when_there_are_blocks_again(
        self, prefix_cache: bool, computed_anew: int
    ) -> None:
        scheduler = scheduler_of(blocks=5, prefix_cache=prefix_cache)
        old, young = sequence("old", 7), sequence("young", 7)
        started(scheduler, old, young)
        scheduler.add(sequence("later", 5))
        assert step(scheduler) == [("old", 1), ("young", 1)]
        # Each needs a third block now, and there is one.
        schedule = scheduler.schedule()
        assert [work.sequence for work in schedule.works] == [old]
        assert schedule.preempted == [young]
        assert scheduler.counts.preemptions == 1
        scheduler.remove(old)
        assert step(scheduler) == [("young", computed_anew)]
        assert len(young.output.token_ids) == 3

    def test_who_rests_without_credit_goes_first(self) -> None:
        scheduler = scheduler_of(blocks=5)
        resting, young = sequence("resting", 7, credit_tokens=1, priority=1), sequence("young", 7)
        started(scheduler, resting, young)
        assert step(scheduler) == [("young", 1)]
        assert step(scheduler) == [("young", 1)]
        while young.total_tokens < 13:
            assert step(scheduler) == [("young", 1)]
        schedule = scheduler.schedule()
        assert schedule.preempted == [resting]
        assert [work.sequence for work in schedule.works] == [young]

    def test_then_who_has_the_lowest_priority(self) -> None:
        scheduler = scheduler_of(blocks=5)
        low, high = sequence("low", 7), sequence("high", 7, priority=1)
        started(scheduler, low, high)
        step(scheduler)
        assert scheduler.schedule().preempted == [low]

    def test_who_was_preempted_without_credit_waits_for_it(self) -> None:
        scheduler = scheduler_of(blocks=5)
        resting, young = sequence("resting", 7, credit_tokens=1), sequence("young", 7)
        started(scheduler, resting, young)
        while resting.slot is not None:
            step(scheduler)
        scheduler.remove(young)
        assert step(scheduler) == []
        resting.credit_tokens = 1
        assert step(scheduler) == [("resting", 4)]

    def test_abort_frees_blocks_and_slot_for_the_next_step(self) -> None:
        scheduler = scheduler_of(slots=1, blocks=3)
        gone = sequence("gone", 9)
        started(scheduler, gone)
        scheduler.add(sequence("next", 12))
        assert step(scheduler) == [("gone", 1)]
        scheduler.remove(gone)
        assert pool_of(scheduler).used_blocks == 0
        assert step(scheduler) == [("next", 12)]


class TestHigherPriority:
    def test_it_takes_the_slot_of_the_youngest_of_lower_priority(self) -> None:
        scheduler = scheduler_of(slots=3)
        running = [sequence("even", 3, priority=1), sequence("old", 3), sequence("young", 3)]
        started(scheduler, *running)
        scheduler.add(sequence("high", 3, priority=1))
        schedule = scheduler.schedule()
        assert schedule.preempted == [running[2]]
        assert [work.sequence.request.key for work in schedule.works] == ["even", "old", "high"]

    def test_it_takes_the_blocks_of_lower_priority(self) -> None:
        scheduler = scheduler_of(blocks=8)
        started(scheduler, sequence("old", 7), sequence("young", 7))
        scheduler.add(sequence("high", 17, priority=1))
        assert step(scheduler) == [("old", 1), ("high", 17)]

    def test_nobody_is_preempted_in_vain(self) -> None:
        scheduler = scheduler_of(blocks=8)
        started(scheduler, sequence("even", 15, priority=1), sequence("low", 3))
        scheduler.add(sequence("high", 16, priority=1))
        assert step(scheduler) == [("even", 1), ("low", 1)]

    def test_who_was_preempted_does_not_come_back_in_the_same_step(self) -> None:
        scheduler = scheduler_of(blocks=12, step_tokens=8)
        prompt = range(30)
        large, small = sequence("large", prompt), sequence("small", 3)
        scheduler.add(large)
        scheduler.add(small)
        assert step(scheduler) == [("large", 5), ("small", 3)]
        assert step(scheduler) == [("small", 1), ("large", 8)]
        # The large one waits for what this computes, and there is room again for the small one.
        scheduler.add(sequence("high", prompt[:26], priority=1))
        schedule = scheduler.schedule()
        assert schedule.preempted == [small, large]
        assert [work.sequence.request.key for work in schedule.works] == ["high"]

    def test_equal_priority_takes_nobodys_slot(self) -> None:
        scheduler = scheduler_of(slots=1)
        started(scheduler, sequence("resting", 3, credit_tokens=1))
        scheduler.add(sequence("next", 3))
        assert step(scheduler) == []

    def test_equal_priority_takes_the_blocks_of_who_rests(self) -> None:
        scheduler = scheduler_of(blocks=4)
        resting = sequence("resting", 7, credit_tokens=1)
        started(scheduler, resting)
        scheduler.add(sequence("next", 13))
        assert step(scheduler) == [("next", 13)]
        assert resting.slot is None
