"""Requests that the scripted engine holds, and the order in which they get their turn."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

from services.worker.engines.base import EngineRequest
from services.worker.engines.scripted.sequence import Sequence


@dataclass(eq=False)
class Job:
    """A request, and how many of its sequences have been admitted and have finished."""

    request: EngineRequest
    prompt_token_ids: list[int]
    reserved_tokens: int
    """KV tokens that each running sequence of it takes."""
    sequences: list[Sequence]
    arrived_s: float
    admitted: int = 0
    finished: int = 0
    cached_tokens: int = 0
    """Prompt tokens that were in the prefix cache."""
    is_over: bool = False

    @property
    def prompt_tokens(self) -> int:
        """How long the prompt is."""
        return len(self.prompt_token_ids)

    @property
    def is_waiting(self) -> bool:
        """Whether some of its sequences have no slot yet."""
        return self.admitted < len(self.sequences)


class JobQueue:
    """Waiting jobs: higher priority first, then first come, first served.

    It also keeps the deadlines of all jobs that it has seen, until they pass or the jobs are over.
    """

    def __init__(self) -> None:
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, Job]] = []
        self._waiting_count = 0
        self._deadlines: list[tuple[float, int, Job]] = []

    def __len__(self) -> int:
        return self._waiting_count

    def push(self, job: Job) -> None:
        """Takes a new job."""
        order = next(self._order)
        heapq.heappush(self._waiting, (-job.request.priority, order, job))
        self._waiting_count += 1
        if job.request.deadline_s is not None:
            heapq.heappush(self._deadlines, (job.request.deadline_s, order, job))

    def first(self) -> Job | None:
        """The job whose turn is next; it stays until it is fully admitted or over."""
        while self._waiting:
            job = self._waiting[0][2]
            if job.is_waiting and not job.is_over:
                return job
            heapq.heappop(self._waiting)
        return None

    def leave(self) -> None:
        """Counts one out that was waiting: it is fully admitted, or over."""
        self._waiting_count -= 1

    def next_deadline_s(self) -> float | None:
        """When the next deadline of a job that is not over passes."""
        while self._deadlines and self._deadlines[0][2].is_over:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def pop_expired(self, now: float) -> list[Job]:
        """The jobs whose deadline has passed."""
        expired = []
        while (deadline_s := self.next_deadline_s()) is not None and deadline_s <= now:
            expired.append(heapq.heappop(self._deadlines)[2])
        return expired
