"""Decides which sequences compute what in the next step. Knows no tensors and no clock."""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from services.worker.engines.transformers.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """The part of a sequence that a step computes: its next `tokens` uncomputed tokens."""

    sequence: Sequence
    tokens: int

    @property
    def samples(self) -> bool:
        """Whether the step ends with a new token of the sequence."""
        return self.tokens == self.sequence.uncomputed_tokens


class Scheduler:
    """Keeps the waiting and the running sequences, and gives the running ones their KV slots.

    Every running sequence that decodes is in every step; beside them a step computes up to
    `step_tokens` tokens of prompts, oldest first, long prompts in pieces. So a long prompt neither
    stops the others nor waits for them. A sequence without credit keeps its slot and rests.
    """

    def __init__(self, slots: int, step_tokens: int) -> None:
        self._free_slots = list(range(slots))
        self._step_tokens = step_tokens
        self.running: list[Sequence] = []
        self._waiting: list[tuple[int, int, Sequence]] = []
        self._arrivals = 0

    @property
    def waiting_count(self) -> int:
        """Sequences without a slot."""
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence in the queue: behind those of its priority, before those of lower."""
        self._arrivals += 1
        insort(self._waiting, (-sequence.request.priority, self._arrivals, sequence))

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is. Its slot is free for the next step."""
        if sequence.slot is None:
            self._waiting = [entry for entry in self._waiting if entry[2] is not sequence]
            return
        self.running.remove(sequence)
        heapq.heappush(self._free_slots, sequence.slot)
        sequence.slot = None

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

    def schedule(self) -> list[Work]:
        """The next step: decoding sequences by slot, then pieces of prompts. Empty if none can go.

        Moves waiting sequences into free slots as far as the step reaches.
        """
        decodes = []
        prompts = []
        budget = self._step_tokens
        for sequence in self.running:
            if not sequence.has_credit:
                continue
            if sequence.uncomputed_tokens == 1:
                decodes.append(Work(sequence, 1))
            elif budget:
                tokens = min(budget, sequence.uncomputed_tokens)
                prompts.append(Work(sequence, tokens))
                budget -= tokens
        while budget and self._free_slots and self._waiting:
            sequence = self._waiting.pop(0)[2]
            sequence.slot = heapq.heappop(self._free_slots)
            sequence.computed_tokens = 0
            self.running.append(sequence)
            tokens = min(budget, sequence.uncomputed_tokens)
            prompts.append(Work(sequence, tokens))
            budget -= tokens
        # Slots are handed out lowest first, so decodes in slot order mostly are one block of the
        # cache, which attention then reads in place.
        decodes.sort(key=_slot_of)
        return decodes + prompts

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.running
        for _, _, sequence in self._waiting:
            yield sequence


def _slot_of(work: Work) -> int:
    assert work.sequence.slot is not None
    return work.sequence.slot
