"""What sequences find in the prefix cache, and what they wait for."""

from __future__ import annotations

from services.worker.engines.transformers.scheduling.scheduler import Scheduler
from services.worker.engines.transformers.scheduling.sequence import Sequence
from tests.sequences import choices, pool_of, scheduler_of, sequence, step

SYSTEM = range(100, 112)
"""Three blocks."""


def run(scheduler: Scheduler, each: Sequence, tokens: int) -> None:
    """Lets a sequence alone produce so many tokens, and ends it."""
    scheduler.add(each)
    while len(each.output.token_ids) < tokens:
        step(scheduler)
    scheduler.remove(each)


class TestPrefixCache:
    def test_a_prompt_that_begins_alike_is_computed_from_where_it_differs(self) -> None:
        scheduler = scheduler_of()
        run(scheduler, sequence("a", [*SYSTEM, 1, 2, 3, 4]), 1)
        later = sequence("b", [*SYSTEM, 9, 9, 9, 9, 9])
        scheduler.add(later)
        assert step(scheduler) == [("b", 5)]
        assert later.cached_tokens == 12
        assert (scheduler.counts.queried_tokens, scheduler.counts.hit_tokens) == (16 + 17, 12)

    def test_the_last_token_is_always_computed(self) -> None:
        scheduler = scheduler_of()
        run(scheduler, sequence("a", SYSTEM), 1)
        again = sequence("b", SYSTEM)
        scheduler.add(again)
        assert step(scheduler) == [("b", 4)]
        assert again.cached_tokens == 8
        assert len(again.output.token_ids) == 1

    def test_one_token_behind_the_cached_ones_is_a_prompt_still(self) -> None:
        scheduler = scheduler_of(slots=2)
        run(scheduler, sequence("a", SYSTEM), 1)
        scheduler.add(sequence("b", [*SYSTEM, 7]))
        assert step(scheduler) == [("b", 1)]
        assert step(scheduler) == [("b", 1)]

    def test_the_next_turn_of_a_conversation_finds_prompt_and_answer(self) -> None:
        scheduler = scheduler_of()
        first = sequence("turn 1", SYSTEM)
        run(scheduler, first, 9)
        prompt = [*SYSTEM, *first.output.token_ids, 5, 6, 7]
        second = sequence("turn 2", prompt)
        scheduler.add(second)
        # 12 + 9 tokens, the last of them sampled only: five full blocks.
        assert step(scheduler) == [("turn 2", 24 - 20)]
        assert second.cached_tokens == 20

    def test_choices_compute_their_prompt_once(self) -> None:
        scheduler = scheduler_of(step_tokens=8)
        made = choices("a", 18, count=3)
        for each in made:
            scheduler.add(each)
        assert [step(scheduler) for _ in range(4)] == [
            [("a", 8)],
            [("a", 8)],
            [("a", 2), ("a", 2), ("a", 2)],
            [("a", 1), ("a", 1), ("a", 1)],
        ]
        assert [each.cached_tokens for each in made] == [0, 16, 16]
        assert made[0].blocks[:4] == made[1].blocks[:4] == made[2].blocks[:4]
        assert len({each.blocks[4] for each in made}) == 3

    def test_who_shares_a_prompt_that_is_being_computed_waits_while_others_pass(self) -> None:
        scheduler = scheduler_of(step_tokens=8)
        for each in (
            sequence("a", [*SYSTEM, 1]),
            sequence("b", [*SYSTEM, 2]),
            sequence("c", 3),
        ):
            scheduler.add(each)
        assert step(scheduler) == [("a", 5), ("c", 3)]
        assert step(scheduler) == [("c", 1), ("a", 8)]
        assert step(scheduler) == [("a", 1), ("c", 1), ("b", 1)]

    def test_nobody_waits_for_what_lower_priority_computes(self) -> None:
        scheduler = scheduler_of(step_tokens=8)
        scheduler.add(sequence("low", [*SYSTEM, 1]))
        assert step(scheduler) == [("low", 8)]
        scheduler.add(sequence("high", [*SYSTEM, 2], priority=1))
        # Two blocks are there; the third is computed twice rather than waited for.
        assert step(scheduler) == [("high", 5), ("low", 3)]

    def test_nobody_waits_for_who_has_stopped_computing(self) -> None:
        scheduler = scheduler_of(step_tokens=8)
        gone = sequence("a", [*SYSTEM, 1])
        scheduler.add(gone)
        step(scheduler)
        scheduler.add(sequence("b", [*SYSTEM, 2]))
        scheduler.remove(gone)
        assert step(scheduler) == [("b", 5)]

    def test_nobody_waits_for_what_was_computed_and_is_not_to_be_found(self) -> None:
        scheduler = scheduler_of(step_tokens=8)
        scheduler.add(sequence("a", [*SYSTEM, *range(30)]))
        step(scheduler)
        bad = sequence("bad", [*SYSTEM[:8], 1])
        scheduler.add(bad)
        step(scheduler)
        assert bad.cached_tokens == 8
        scheduler.discard(bad)
        scheduler.add(sequence("b", [*SYSTEM[:8], 2]))
        assert ("b", 4) in step(scheduler)

    def test_nothing_is_shared_across_adapters(self) -> None:
        scheduler = scheduler_of()
        run(scheduler, sequence("a", SYSTEM), 1)
        scheduler.add(sequence("b", SYSTEM, adapter="lora"))
        assert step(scheduler) == [("b", 12)]

    def test_nothing_of_a_failed_sequence_is_found(self) -> None:
        scheduler = scheduler_of()
        bad = sequence("a", [*SYSTEM, 1])
        scheduler.add(bad)
        step(scheduler)
        assert scheduler.discard(bad) == [0, 1, 2, 3]
        assert pool_of(scheduler).free_blocks == pool_of(scheduler).blocks
        scheduler.add(sequence("b", [*SYSTEM, 2]))
        assert step(scheduler) == [("b", 13)]

    def test_a_failed_sequence_leaves_others_what_they_share(self) -> None:
        scheduler = scheduler_of()
        run(scheduler, sequence("a", SYSTEM), 1)
        good, bad = sequence("good", [*SYSTEM, 1]), sequence("bad", [*SYSTEM, 2])
        for each in (good, bad):
            scheduler.add(each)
        step(scheduler)
        shared = good.blocks[:3]
        assert bad.blocks[:3] == shared
        assert not set(scheduler.discard(bad)) & set(shared)
        assert good.blocks[:3] == shared
        assert step(scheduler) == [("good", 1)]

    def test_without_the_cache_everything_is_computed(self) -> None:
        scheduler = scheduler_of(prefix_cache=False)
        run(scheduler, sequence("a", SYSTEM), 1)
        assert pool_of(scheduler).cached_blocks == 0
        for each in choices("b", SYSTEM, count=2):
            scheduler.add(each)
        assert step(scheduler) == [("b", 12), ("b", 12)]
