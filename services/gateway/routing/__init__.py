"""Routing policies, one to a file, chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from services.gateway.routing.base import RoutingPolicy
from services.gateway.routing.least_latency import LeastLatency
from services.gateway.routing.lottery import Lottery
from services.gateway.routing.power_of_two import PowerOfTwo
from services.gateway.routing.prefix_affinity import (
    AffinityOutcome,
    AffinityTuning,
    PrefixAffinity,
)
from services.gateway.routing.random_choice import RandomChoice
from services.gateway.routing.round_robin import RoundRobin
from services.gateway.routing.shortest_queue import ShortestQueue

DEFAULT_POLICY = "prefix_affinity"

POLICIES: dict[str, Callable[[], RoutingPolicy]] = {
    "least_latency": LeastLatency,
    "lottery": Lottery,
    "power_of_two": PowerOfTwo,
    "prefix_affinity": PrefixAffinity,
    "random": RandomChoice,
    "round_robin": RoundRobin,
    "shortest_queue": ShortestQueue,
}


def policy_maker(
    name: str, affinity: AffinityTuning, observe: Callable[[AffinityOutcome], None]
) -> Callable[[], RoutingPolicy]:
    """What makes a policy of POLICIES for a model. `affinity`, `observe` are prefix_affinity's."""
    if name == "prefix_affinity":
        return partial(PrefixAffinity, affinity, observe=observe)
    return POLICIES[name]
