"""Those who run: their slots, and who of them is given up first."""

from __future__ import annotations

import heapq

from services.worker.engines.transformers.scheduling.sequence import Sequence


class RunningSet:
    """The running sequences, each in a slot of its own.

    Given up first are those that rest without credit, then those of the lowest priority, then the
    youngest.

    Args:
        slots: how many may run at once.
    """

    def __init__(self, slots: int) -> None:
        self.sequences: list[Sequence] = []
        self._free_slots = list(range(slots))

    @property
    def has_slot(self) -> bool:
        """Whether one more may run."""
        return bool(self._free_slots)

    def enter(self, sequence: Sequence) -> None:
        """Gives a sequence the lowest free slot."""
        sequence.slot = heapq.heappop(self._free_slots)
        self.sequences.append(sequence)

    def leave(self, sequence: Sequence) -> None:
        """Takes a sequence's slot back."""
        assert sequence.slot is not None
        self.sequences.remove(sequence)
        heapq.heappush(self._free_slots, sequence.slot)
        sequence.slot = None

    def ready(self) -> list[Sequence]:
        """Those that do not rest."""
        return [each for each in self.sequences if each.has_credit]

    def most_dispensable(self) -> Sequence:
        """Who is given up first."""
        return max(self.sequences, key=_dispensability)

    def displaceable_by(self, sequence: Sequence) -> list[Sequence]:
        """Those that a waiting sequence may preempt, the most dispensable first.

        Those of lower priority; and for their blocks alone, resting ones of its own.
        """
        priority = sequence.request.priority
        resting_priority = priority if self.has_slot else None
        return sorted(
            (
                each
                for each in self.sequences
                if each.request.priority < priority
                or (each.request.priority == resting_priority and not each.has_credit)
            ),
            key=_dispensability,
            reverse=True,
        )


def _dispensability(sequence: Sequence) -> tuple[bool, tuple[int, float, int]]:
    return not sequence.has_credit, sequence.rank
