"""Decides which sequences compute what in the next step. Knows no tensors and no clock."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from services.worker.engines.transformers.scheduling.block_hash import BlockHashes
from services.worker.engines.transformers.scheduling.block_pool import BlockPool
from services.worker.engines.transformers.scheduling.block_tables import BlockTables
from services.worker.engines.transformers.scheduling.prefill_shares import fair_shares
from services.worker.engines.transformers.scheduling.running_set import RunningSet
from services.worker.engines.transformers.scheduling.sequence import Request, Sequence
from services.worker.engines.transformers.scheduling.waiting_line import WaitingLine
from services.worker.engines.transformers.scheduling.work import Schedule, Work

__all__ = ["Schedule", "Scheduler", "SchedulerCounts", "Work"]

_WATERMARK_SHARE = 100
"""One block in so many stays available when a sequence joins others, so that these can grow for
a while before one of them must be preempted."""

_SCORED_TOKENS = 64
"""A piece of a prompt whose log probabilities are wanted: each token of it takes the memory of a
row of logits, 600 KB with a vocabulary of 150,000."""


@dataclass(slots=True)
class SchedulerCounts:
    """What happened since the start."""

    preemptions: int = 0
    queried_tokens: int = 0
    """Tokens of sequences that began to run, looked up in the prefix cache."""
    hit_tokens: int = 0
    """Those of them that were found."""


class Scheduler:
    """Keeps the waiting and the running sequences, and gives the running ones slots and blocks.

    Every running sequence that decodes is in every step; beside them a step computes up to
    `step_tokens` tokens of prompts, shared fairly. So a long prompt neither stops the decoding
    ones nor holds up a short one. A sequence without credit rests, and is the first to lose its
    place when somebody else needs it.

    Sequences stand in one order, from their priority and their turn in the line. Where blocks run
    out the last of them is preempted: it goes back to the front of the line and is computed anew.
    The first can always go on, because it fits alone; so all finish.

    Args:
        slots: sequences that may run at once.
        step_tokens: prompt tokens of one step.
        pool: the KV cache's blocks. A sequence must fit alone: see MemoryPlan.
        prefix_cache: whether blocks with equal content are shared and kept.
        cache_root: stands for the weights; see `root_hash`.
    """

    def __init__(
        self,
        slots: int,
        step_tokens: int,
        pool: BlockPool,
        *,
        prefix_cache: bool,
        cache_root: bytes = b"",
    ) -> None:
        self._step_tokens = step_tokens
        self._pool = pool
        hashes = BlockHashes(cache_root, pool.block_tokens) if prefix_cache else None
        self._tables = BlockTables(pool, hashes)
        self.has_prefix_cache = prefix_cache
        self._watermark = max(1, pool.blocks // _WATERMARK_SHARE)
        self._running = RunningSet(slots)
        self._line = WaitingLine()
        self._planned: dict[Sequence, int] = {}
        self._preempted: list[Sequence] = []
        self.counts = SchedulerCounts()

    @property
    def running(self) -> list[Sequence]:
        """Sequences with a slot."""
        return self._running.sequences

    @property
    def waiting_count(self) -> int:
        """Sequences that do not run."""
        return len(self._line)

    @property
    def used_tokens(self) -> int:
        """Tokens that the blocks of running sequences have room for."""
        return self._pool.used_blocks * self._pool.block_tokens

    @property
    def kv_blocks(self) -> dict[str, int]:
        """How many blocks are used, cached and free."""
        pool = self._pool
        return {"used": pool.used_blocks, "cached": pool.cached_blocks, "free": pool.free_blocks}

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self._line

    def of_request(self, key: Hashable) -> list[Sequence]:
        """The sequences of a request."""
        return [sequence for sequence in self if sequence.request.key == key]

    def late(self, now_s: float) -> list[Sequence]:
        """Sequences whose deadline has passed."""
        return [
            sequence
            for sequence in self
            if sequence.request.deadline_s is not None and sequence.request.deadline_s <= now_s
        ]

    def next_deadline_s(self) -> float | None:
        """When the next deadline passes, on the monotonic clock."""
        return min(
            (each.request.deadline_s for each in self if each.request.deadline_s is not None),
            default=None,
        )

    def add(self, sequence: Sequence) -> None:
        """Lines a sequence up."""
        self._line.join(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is. Its place is free for the next step."""
        if sequence.slot is None:
            self._line.remove(sequence)
        else:
            self._stop(sequence)

    def discard(self, sequence: Sequence) -> list[int]:
        """Takes a sequence out whose computation failed, and keeps nothing of it.

        Returns:
            Blocks that hold what it left and that nobody else uses.
        """
        left = self._tables.discard(sequence)
        self.remove(sequence)
        return left

    def schedule(self) -> Schedule:
        """Decides on the next step. Each of its works ends in `advance`, `remove` or `discard`."""
        self._planned = {}
        self._preempted = []
        self._plan_decodes()
        if not self._preempted:
            self._admit()
        self._plan_prefills()
        works = [Work.of(sequence, tokens) for sequence, tokens in self._planned.items()]
        return Schedule(works, self._preempted)

    def advance(self, work: Work) -> None:
        """Books what a step has computed of a sequence."""
        work.sequence.computed_tokens += work.tokens
        self._tables.seal(work.sequence)

    def _plan_decodes(self) -> None:
        decoding = [each for each in self._running.ready() if each.uncomputed_tokens == 1]
        for sequence in sorted(decoding, key=_rank_of):
            is_running = sequence.slot is not None
            if is_running and not self._make_room(sequence, self._tables.lacking(sequence, 1)):
                self._preempt(sequence)
            elif is_running:
                self._tables.grow(sequence, 1)
        # Slots are handed out lowest first, so decodes in slot order mostly are rows side by side.
        staying = (each for each in decoding if each.slot is not None)
        self._planned = dict.fromkeys(sorted(staying, key=_slot_of), 1)

    def _plan_prefills(self) -> None:
        prefills = sorted(self._in_prefill(), key=_rank_of)
        budget = self._step_tokens
        for _, group in groupby(prefills, key=_priority_of):
            peers = list(group)
            shares = fair_shares([each.uncomputed_tokens for each in peers], budget)
            budget -= sum(shares)
            for sequence, tokens in zip(peers, shares, strict=True):
                self._plan_piece(sequence, tokens)

    def _plan_piece(self, sequence: Sequence, tokens: int) -> None:
        """Plans up to `tokens` tokens of a prompt: what there are blocks for."""
        if sequence.slot is None:
            return
        if sequence.scores_prompt:
            tokens = min(tokens, _SCORED_TOKENS)
        self._make_room(sequence, self._tables.lacking(sequence, tokens))
        tokens = min(tokens, self._tables.room_tokens(sequence))
        if tokens > 0:
            self._tables.grow(sequence, tokens)
            self._planned[sequence] = tokens

    def _admit(self) -> None:
        """Lets waiting sequences run, as far as slots, blocks and the step's tokens reach."""
        prefills = self._in_prefill()
        awaiting: set[Request] = set()
        # A copy, so that nobody who is preempted on the way comes back in the same step.
        for sequence in list(self._line):
            if len(prefills) >= self._step_tokens:
                return
            request = sequence.request
            if not sequence.has_credit or request in awaiting:
                continue
            if not self._running.has_slot and not self._running.displaceable_by(sequence):
                return
            matched = self._tables.match(sequence)
            if self._tables.is_being_computed(
                sequence, len(matched), _not_below(request, prefills)
            ):
                # Soon it finds these blocks in the cache. Who computes them is in this step.
                awaiting.add(request)
                continue
            victims = self._victims_for(sequence, matched)
            if victims is None:
                return
            for victim in victims:
                self._preempt(victim)
            self._start(sequence, matched)
            prefills = self._in_prefill()

    def _victims_for(self, sequence: Sequence, matched: list[int]) -> list[Sequence] | None:
        """Whom to preempt so that a waiting sequence can run: mostly nobody. None if it cannot."""
        displaceable = self._running.displaceable_by(sequence)
        if not self._fits(sequence, matched, displaceable):
            return None
        for count in range(len(displaceable) + 1):
            victims = displaceable[:count]
            if (self._running.has_slot or victims) and self._fits(sequence, matched, victims):
                return victims
        return None

    def _fits(self, sequence: Sequence, matched: list[int], victims: list[Sequence]) -> bool:
        """Whether there are blocks for all of a waiting sequence beside what is under way."""
        others = [each for each in self._running.ready() if each not in victims]
        pledged = sum(self._tables.lacking(each, each.uncomputed_tokens) for each in others)
        left = self._tables.available_beside(matched, victims) - pledged
        wanted = self._tables.lacking(sequence, sequence.uncomputed_tokens) - len(matched)
        return left >= wanted + (self._watermark if others else 0)

    def _make_room(self, sequence: Sequence, blocks: int) -> bool:
        """Preempts those behind a running sequence until so many blocks are available."""
        while self._pool.available_blocks < blocks:
            last = self._running.most_dispensable()
            if last is sequence:
                return False
            self._preempt(last)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._planned.pop(sequence, None)
        self._stop(sequence)
        self._line.put_back(sequence)
        self._preempted.append(sequence)
        self.counts.preemptions += 1

    def _start(self, sequence: Sequence, matched: list[int]) -> None:
        self._line.depart(sequence)
        self._tables.start(sequence, matched)
        self._running.enter(sequence)
        if sequence.cached_tokens is None:
            sequence.cached_tokens = min(sequence.computed_tokens, len(sequence.request.prompt_ids))
        self.counts.queried_tokens += sequence.total_tokens
        self.counts.hit_tokens += sequence.computed_tokens

    def _stop(self, sequence: Sequence) -> None:
        self._running.leave(sequence)
        self._tables.empty(sequence)

    def _in_prefill(self) -> list[Sequence]:
        return [each for each in self._running.ready() if each not in self._planned]


def _not_below(request: Request, sequences: Iterable[Sequence]) -> list[Sequence]:
    """Those whose priority is not lower: to wait for others would turn priorities around."""
    return [each for each in sequences if each.request.priority >= request.priority]


def _rank_of(sequence: Sequence) -> tuple[int, float, int]:
    return sequence.rank


def _priority_of(sequence: Sequence) -> int:
    return sequence.request.priority


def _slot_of(sequence: Sequence) -> int:
    assert sequence.slot is not None
    return sequence.slot
