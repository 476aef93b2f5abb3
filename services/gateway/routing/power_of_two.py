"""`power_of_two`: the less loaded of two workers drawn at random.

Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001): nearly as even as the
shortest queue, and gateways that all see the same stale load do not all rush to one worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from services.gateway.routing.base import Candidate, RoutingRequest
from services.gateway.routing.shortest_queue import queue_length


class PowerOfTwo:
    """The better of two."""

    def choose(
        self, request: RoutingRequest, candidates: Sequence[Candidate], random: Random
    ) -> Candidate:
        """The less loaded of two candidates drawn without replacement."""
        if len(candidates) == 1:
            return candidates[0]
        return min(random.sample(candidates, 2), key=queue_length)
