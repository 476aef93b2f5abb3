"""`lottery`: a random worker, the faster ones more often. FastChat's policy of this name."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from services.gateway.routing.base import Candidate, RoutingRequest


class Lottery:
    """Draws in proportion to speed, whatever the load."""

    def choose(
        self, request: RoutingRequest, candidates: Sequence[Candidate], random: Random
    ) -> Candidate:
        """A candidate drawn by speed."""
        return random.choices(candidates, weights=[each.speed for each in candidates])[0]
