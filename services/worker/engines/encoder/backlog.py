"""Which rows run together. Pure.

A batch begins with a row of the job whose turn it is, so that no call waits for all of a large one
before it, and fills up with the rows whose length is nearest: what a batch pads is computed for
nothing. Nothing waits for a batch to fill. While one runs the next one gathers, so that batches
grow by themselves with what is asked.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from services.worker.engines.encoder.job import Job, Row

MAX_PADDED_SHARE = 0.5
"""The shortest row of a batch has at least this share of the longest's tokens. Less padding makes
smaller batches, and more of them."""

SHORT_TOKENS = 16
"""Rows that differ by no more may always share a batch: beside the cost of a forward pass their
padding is nothing."""


class Place(NamedTuple):
    """A row of a job, in the order of lengths."""

    length: int
    number: int
    """Of the row among all that have come, which orders rows of one length."""
    job: Job
    at: int
    """Of the row in its job."""

    @property
    def row(self) -> Row:
        """The row itself."""
        return self.job.rows[self.at]


class Backlog:
    """Jobs whose rows wait."""

    def __init__(self) -> None:
        self._by_length: list[Place] = []
        self._turns: deque[tuple[Job, deque[Place]]] = deque()
        self._number = 0

    def __len__(self) -> int:
        """Rows that wait, those of jobs that are over included until they are swept."""
        return len(self._by_length)

    @property
    def jobs(self) -> int:
        """Jobs that have rows waiting."""
        return len(self._turns)

    def add(self, job: Job) -> None:
        """Lets all rows of a job wait."""
        places = deque[Place]()
        for index, row in enumerate(job.rows):
            self._number += 1
            place = Place(len(row), self._number, job, index)
            places.append(place)
            insort(self._by_length, place)
        self._turns.append((job, places))

    def sweep(self) -> None:
        """Drops the rows of jobs that are over."""
        if any(job.is_over for job, _ in self._turns):
            self._turns = deque(each for each in self._turns if not each[0].is_over)
            self._by_length = [each for each in self._by_length if not each.job.is_over]

    def waiting(self) -> Iterator[Job]:
        """The jobs that have rows waiting."""
        return (job for job, _ in self._turns)

    def next_batch(self, limit_tokens: int) -> Sequence[Place]:
        """Takes the rows that run next, the shortest first. Empty when none wait.

        `limit_tokens` are those of the batch, padding included. A longer row runs by itself.
        """
        self.sweep()
        first = self._next_in_turn()
        if first is None:
            return ()
        start = bisect_left(self._by_length, first)
        low, high = self._around(start, limit_tokens)
        batch = self._by_length[low:high]
        del self._by_length[low:high]
        self._end_turn({(each.job, each.at) for each in batch})
        return batch

    def _next_in_turn(self) -> Place | None:
        if not self._turns:
            return None
        _, places = self._turns[0]
        return places[0]

    def _around(self, start: int, limit_tokens: int) -> tuple[int, int]:
        """The bounds of the rows about `start` that fit one batch, the nearest lengths first."""
        rows = self._by_length
        low, high = start, start + 1
        while True:
            shortest, longest = rows[low].length, rows[high - 1].length
            below = rows[low - 1].length if low > 0 else None
            above = rows[high].length if high < len(rows) else None
            room = limit_tokens // (high - low + 1)
            if below is not None and not _fits(below, longest, room):
                below = None
            if above is not None and not _fits(shortest, above, room):
                above = None
            if below is None and above is None:
                return low, high
            if above is None or (below is not None and shortest - below <= above - longest):
                low -= 1
            else:
                high += 1

    def _end_turn(self, taken: set[tuple[Job, int]]) -> None:
        """Takes rows out of their jobs; the job whose turn it was goes to the end of the line."""
        jobs = {job for job, _ in taken}
        left: deque[tuple[Job, deque[Place]]] = deque()
        for job, places in self._turns:
            waiting = places
            if job in jobs:
                waiting = deque(each for each in places if (job, each.at) not in taken)
            if waiting:
                left.append((job, waiting))
        if left and left[0][0] in jobs:
            left.rotate(-1)
        self._turns = left


def _fits(shortest: int, longest: int, room: int) -> bool:
    """Whether rows of these lengths may share a batch that has so much room for each."""
    is_alike = longest - shortest <= SHORT_TOKENS or shortest >= longest * MAX_PADDED_SHARE
    return is_alike and longest <= room
