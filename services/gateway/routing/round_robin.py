"""`round_robin`: each worker in turn."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from services.gateway.routing.base import Candidate, RoutingRequest


class RoundRobin:
    """Walks through the worker ids in order; workers may come and go in between."""

    def __init__(self) -> None:
        self._last_id = ""

    def choose(
        self, request: RoutingRequest, candidates: Sequence[Candidate], random: Random
    ) -> Candidate:
        """The first candidate after the one chosen last."""
        chosen = next((each for each in candidates if each.worker_id > self._last_id), None)
        chosen = chosen or candidates[0]
        self._last_id = chosen.worker_id
        return chosen
