"""Whatever comes in whatever order: everybody gets through, and reads only what is theirs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.worker.engines.transformers.scheduling.scheduler import Scheduler
from services.worker.engines.transformers.scheduling.sequence import Sequence
from services.worker.engines.transformers.scheduling.work import Work
from tests.sequences import BLOCK_TOKENS, choices, pool_of, scheduler_of

STEPS_LIMIT = 5000


@dataclass(frozen=True)
class Arrival:
    """A request, and what becomes of it."""

    step: int
    prompt: tuple[int, ...]
    output_tokens: int
    count: int
    priority: int
    credit_tokens: int | None
    """Granted at first, and again whenever it was used up for `rests_steps`."""
    rests_steps: int
    leaves: tuple[int, str] | None
    """Steps after its arrival at which its client goes, or its computation fails."""


@st.composite
def arrivals(draw: st.DrawFn, context_tokens: int) -> list[Arrival]:
    """Requests whose prompts often begin alike, each fitting the context."""

    def one() -> Arrival:
        prompt = tuple(draw(st.lists(st.integers(0, 1), min_size=1, max_size=context_tokens)))
        if draw(st.booleans()):
            prompt = (0,) * len(prompt)
        return Arrival(
            step=draw(st.integers(0, 12)),
            prompt=prompt,
            # The last token is sampled, and never computed.
            output_tokens=draw(st.integers(1, context_tokens - len(prompt) + 1)),
            count=draw(st.integers(1, 3)),
            priority=draw(st.integers(0, 2)),
            credit_tokens=draw(st.none() | st.integers(1, 3)),
            rests_steps=draw(st.integers(0, 4)),
            leaves=draw(
                st.none() | st.tuples(st.integers(0, 12), st.sampled_from(["abort", "fail"]))
            ),
        )

    return [one() for _ in range(draw(st.integers(1, 7)))]


@dataclass
class Engine:
    """Runs schedules over a memory that knows which tokens lie before each of its own."""

    scheduler: Scheduler
    slots: int
    step_tokens: int
    wanted: dict[Sequence, Arrival] = field(default_factory=dict)
    rested: Counter[Sequence] = field(default_factory=Counter)
    memory: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)

    def step(self) -> None:
        decoding = {
            each
            for each in self.scheduler.running
            if each.has_credit and each.uncomputed_tokens == 1
        }
        schedule = self.scheduler.schedule()
        assert all(each.slot is None and not each.blocks for each in schedule.preempted)
        self._check_order(schedule.works, decoding)
        for work in schedule.works:
            self._write(work)
        for work in schedule.works:
            self._read(work)
        for work in schedule.works:
            self._take(work)
        self._check_blocks()

    def leave(self, sequence: Sequence, how: str) -> None:
        if sequence not in self.wanted:
            return
        del self.wanted[sequence]
        if how == "abort":
            self.scheduler.remove(sequence)
        else:
            held = list(sequence.blocks)
            left = self.scheduler.discard(sequence)
            pool = pool_of(self.scheduler)
            assert sorted(left) == sorted(each for each in held if not pool.references(each))
            for block in left:
                for offset in range(BLOCK_TOKENS):
                    self.memory.pop((block, offset), None)
        self._check_blocks()

    def grant(self) -> None:
        for sequence, arrival in self.wanted.items():
            if sequence.has_credit:
                continue
            self.rested[sequence] += 1
            if self.rested[sequence] > arrival.rests_steps:
                self.rested[sequence] = 0
                sequence.credit_tokens = arrival.credit_tokens

    def _check_order(self, works: list[Work], decoding: set[Sequence]) -> None:
        running = self.scheduler.running
        slots = [each.slot for each in running]
        assert len(set(slots)) == len(slots) <= self.slots
        assert len({work.sequence for work in works}) == len(works)
        assert all(work.sequence in running and work.sequence.has_credit for work in works)
        prompts = [work.tokens for work in works if work.sequence not in decoding]
        assert sum(prompts) <= self.step_tokens
        assert [work.tokens for work in works[: len(works) - len(prompts)]] == [1] * (
            len(works) - len(prompts)
        )
        planned = {work.sequence for work in works}
        assert {each for each in decoding if each.slot is not None} <= planned
        # Someone goes on wherever someone can.
        ready = [each for each in running if each.has_credit]
        waiting = [each for each in self.scheduler if each.slot is None and each.has_credit]
        assert works or not (ready or (waiting and not running))

    def _write(self, work: Work) -> None:
        sequence = work.sequence
        history = tuple(sequence.token_ids(0, work.start + work.tokens))
        for position in range(work.start, work.start + work.tokens):
            block = sequence.blocks[position // BLOCK_TOKENS]
            assert pool_of(self.scheduler).references(block) == 1
            self.memory[block, position % BLOCK_TOKENS] = history[: position + 1]

    def _read(self, work: Work) -> None:
        sequence = work.sequence
        history = tuple(sequence.token_ids(0, work.start + work.tokens))
        for position in range(work.start + work.tokens):
            block = sequence.blocks[position // BLOCK_TOKENS]
            assert self.memory[block, position % BLOCK_TOKENS] == history[: position + 1]

    def _take(self, work: Work) -> None:
        sequence = work.sequence
        self.scheduler.advance(work)
        if not work.samples:
            return
        sequence.output.take(sequence.total_tokens // 3 % 2)
        if sequence.credit_tokens is not None:
            sequence.credit_tokens -= 1
        if len(sequence.output.token_ids) == self.wanted[sequence].output_tokens:
            self.scheduler.remove(sequence)
            del self.wanted[sequence]

    def _check_blocks(self) -> None:
        pool = pool_of(self.scheduler)
        held = Counter(block for each in self.scheduler for block in each.blocks)
        assert pool.used_blocks == len(held)
        assert all(pool.references(block) == count for block, count in held.items())


@given(st.data())
def test_everybody_gets_through_and_reads_only_what_is_theirs(data: st.DataObject) -> None:
    blocks = data.draw(st.integers(1, 9))
    slots, step_tokens = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    coming = data.draw(arrivals(blocks * BLOCK_TOKENS))
    scheduler = scheduler_of(
        slots=slots, step_tokens=step_tokens, blocks=blocks, prefix_cache=data.draw(st.booleans())
    )
    engine = Engine(scheduler, slots, step_tokens)
    leaving: dict[int, list[Any]] = {}
    for number in range(STEPS_LIMIT):
        for index, each in enumerate(coming):
            if each.step == number:
                sequences = choices(
                    str(index),
                    each.prompt,
                    count=each.count,
                    priority=each.priority,
                    credit_tokens=each.credit_tokens,
                )
                for sequence in sequences:
                    engine.wanted[sequence] = each
                    scheduler.add(sequence)
                if each.leaves is not None:
                    after, how = each.leaves
                    leaving.setdefault(number + after, []).append((sequences, how))
        for sequences, how in leaving.pop(number, []):
            for sequence in sequences:
                engine.leave(sequence, how)
        engine.step()
        engine.grant()
        if not engine.wanted and number >= max(each.step for each in coming):
            break
    assert not engine.wanted
    assert scheduler.used_tokens == 0
    assert not list(scheduler)
