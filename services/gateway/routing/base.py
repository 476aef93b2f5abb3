"""What a routing policy is: it picks one of several workers that could all take a request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import NamedTuple, Protocol


class RoutingRequest(NamedTuple):
    """What a policy may know of the request."""

    prefix_keys: Sequence[int] = ()
    """Keys of its prompt's leading chunks, from the shortest prefix to the longest, as
    `prefix.prefix_keys` makes them. Equal keys stand for equal prefixes."""
    now_s: float = 0.0
    """On a monotonic clock."""


class Candidate(NamedTuple):
    """A worker that could take the request."""

    worker_id: str
    requests: float
    """Running and waiting there: this gateway's own as of now, those of others as last reported."""
    speed: float
    """Relative to other workers. Over 0."""
    latency_s: float = 0.0
    """Time that a short answer took there lately, as this gateway measured; 0 when it has not."""


class RoutingPolicy(Protocol):
    """Picks a worker. One instance serves the requests of one model."""

    def choose(
        self, request: RoutingRequest, candidates: Sequence[Candidate], random: Random
    ) -> Candidate:
        """One of the candidates, which are never empty and in the order of their worker ids."""
        ...


AHEAD_SHARE = 0.25
"""Requests that a worker should have waiting, as a share of those it runs: a place that becomes
free is taken in the next step, and not after a round trip. More would wait where no caller is
treated fairly, and where a deadline costs the worker something."""


MEMORY_FULL_SHARE = 0.9
"""With so much of its KV memory taken, a worker with requests waiting can run no more than it does,
whatever its other limits. Some is always left over: the next request needs more than that."""


def running_limit(max_running: int, running: int, waiting: int, kv_used_share: float) -> int:
    """How many requests a worker can run: what it says, or what its memory lets it."""
    if waiting and running and kv_used_share >= MEMORY_FULL_SHARE:
        return min(max_running, running)
    return max_running


def free_places(requests: float, running_limit: int) -> float:
    """How many more requests a worker should have. Infinite where it does not tell what it can
    run; negative where it has too many.
    """
    if running_limit <= 0:
        return math.inf
    return running_limit + math.ceil(running_limit * AHEAD_SHARE) - requests


def estimate_requests(in_flight: int, reported: int, in_flight_at_report: int) -> int:
    """Requests at a worker just now: those of this gateway, which it knows, and those of others.

    Args:
        in_flight: requests of this gateway at the worker now.
        reported: requests that the worker counted in its last heartbeat.
        in_flight_at_report: requests of this gateway at the worker when the heartbeat came.
    """
    return in_flight + max(0, reported - in_flight_at_report)
