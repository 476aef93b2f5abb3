"""`least_latency`: the worker that would answer first, by how long it took lately.

Cost is the latency times the requests there, this one included, as in Twitter Finagle's peak EWMA
balancer: a latency alone would send everything to one worker until the next measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from services.gateway.routing.base import Candidate, RoutingRequest
from services.gateway.routing.shortest_queue import queue_length


class LeastLatency:
    """Least latency times requests. A worker that was not measured lately is tried while idle."""

    def choose(
        self, request: RoutingRequest, candidates: Sequence[Candidate], random: Random
    ) -> Candidate:
        """The candidate with the least cost; any of those that are equal."""
        known = [each.latency_s for each in candidates if each.latency_s > 0]
        if not known:
            return _any_least([queue_length(each) for each in candidates], candidates, random)
        worst_s = max(known)
        costs = [
            _cost(each.latency_s, each.requests, unknown_s=worst_s, speed=each.speed)
            for each in candidates
        ]
        return _any_least(costs, candidates, random)


def _cost(latency_s: float, requests: float, *, unknown_s: float, speed: float) -> float:
    """An unknown worker costs nothing while idle, and as much as the slowest while it is asked."""
    if latency_s > 0:
        return latency_s * (requests + 1)
    return unknown_s * requests / speed


def _any_least(
    costs: Sequence[float], candidates: Sequence[Candidate], random: Random
) -> Candidate:
    least = min(costs)
    return random.choice(
        [each for each, cost in zip(candidates, costs, strict=True) if cost == least]
    )
