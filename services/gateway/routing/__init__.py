"""Routing policies, one to a file, chosen by name."""

from __future__ import annotations

from collections.abc import Callable

from services.gateway.routing.base import RoutingPolicy
from services.gateway.routing.lottery import Lottery
from services.gateway.routing.power_of_two import PowerOfTwo
from services.gateway.routing.round_robin import RoundRobin
from services.gateway.routing.shortest_queue import ShortestQueue

DEFAULT_POLICY = "shortest_queue"

POLICIES: dict[str, Callable[[], RoutingPolicy]] = {
    "lottery": Lottery,
    "power_of_two": PowerOfTwo,
    "round_robin": RoundRobin,
    "shortest_queue": ShortestQueue,
}
