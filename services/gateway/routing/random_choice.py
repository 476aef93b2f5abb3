"""`random`: any worker, whatever its load."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from services.gateway.routing.base import Candidate, RoutingRequest


class RandomChoice:
    """Draws evenly."""

    def choose(
        self, request: RoutingRequest, candidates: Sequence[Candidate], random: Random
    ) -> Candidate:
        """A candidate drawn evenly."""
        return random.choice(candidates)
