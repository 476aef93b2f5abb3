"""`shortest_queue`: the worker with the fewest requests for its speed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from services.gateway.routing.base import Candidate, RoutingRequest


class ShortestQueue:
    """Least requests divided by speed; any of those that are equal."""

    def choose(
        self, request: RoutingRequest, candidates: Sequence[Candidate], random: Random
    ) -> Candidate:
        """The least loaded candidate."""
        least = min(queue_length(candidate) for candidate in candidates)
        return random.choice([each for each in candidates if queue_length(each) == least])


def queue_length(candidate: Candidate) -> float:
    """Requests that a worker of speed 1 would have in its place."""
    return candidate.requests / candidate.speed
