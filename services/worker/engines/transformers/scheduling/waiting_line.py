"""The line of those who wait to run."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Hashable, Iterator

from services.worker.engines.transformers.scheduling.sequence import Sequence


class WaitingLine:
    """Waiting sequences: higher priority first, and fair between the requests of a priority.

    The order is that of start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996). A request's
    choices stand one unit of virtual time apart, and each departure moves virtual time by one unit
    divided by the requests that wait. So a request of 128 choices does not hold up the next one:
    while others wait, they take turns; and since virtual time moves with every departure, later
    arrivals pass a choice a bounded number of times. Among single choices it is first come, first
    served.

    A sequence keeps the rank that it got first, so one that comes back goes to the front.
    """

    def __init__(self) -> None:
        self._line: list[Sequence] = []
        self._requests: Counter[Hashable] = Counter()
        self._virtual_time = 0.0
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._line)

    def join(self, sequence: Sequence) -> None:
        """Lines up a new sequence behind those of its request."""
        self._arrivals += 1
        key = sequence.request.key
        turn = self._virtual_time + self._requests[key]
        sequence.rank = (-sequence.request.priority, turn, self._arrivals)
        self._insert(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Lines up a sequence that was in the line before, at its old rank."""
        self._insert(sequence)

    def depart(self, sequence: Sequence) -> None:
        """Takes a sequence out that runs now."""
        requests = len(self._requests)
        self.remove(sequence)
        self._virtual_time = max(self._virtual_time + 1 / requests, sequence.rank[1])

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out that gives up."""
        self._line.remove(sequence)
        key = sequence.request.key
        self._requests[key] -= 1
        if not self._requests[key]:
            del self._requests[key]

    def _insert(self, sequence: Sequence) -> None:
        insort(self._line, sequence, key=_rank_of)
        self._requests[sequence.request.key] += 1


def _rank_of(sequence: Sequence) -> tuple[int, float, int]:
    return sequence.rank
