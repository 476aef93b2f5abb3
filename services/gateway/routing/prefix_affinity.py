"""`prefix_affinity`: a conversation comes back to the worker that has its KV blocks.

The shortest prefix of a prompt that is not hot decides, by rendezvous hashing, which worker is its
home. So whatever shares its beginning shares a worker, until that worker has more than its part of
the load: then the prefix is hot, and from then on each longer prefix has a home of its own, down to
the single conversation. A request whose last home has no room goes to the next worker in
that home's order (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads",
2018), so no worker is ever loaded beyond the bound, however alike the prompts are.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from services.gateway.routing.base import Candidate, RoutingRequest
from services.gateway.routing.rendezvous import home, ranked
from services.gateway.routing.shortest_queue import ShortestQueue


class AffinityOutcome(StrEnum):
    """What became of a request's affinity."""

    HOME = "home"
    """It went where its prefix belongs."""
    SPILL = "spill"
    """The home had no room, so it went to the next worker in the home's order."""
    NONE = "none"
    """It has no prefix; it went to the shortest queue."""


@dataclass(frozen=True)
class AffinityTuning:
    """When a worker has more than its part."""

    load_factor: float = 1.25
    """A worker takes so many times its part of all requests, by speed. Nearer to 1 keeps workers
    even; more keeps conversations where they are. 1.25 is what the paper's authors run with."""
    free_requests: int = 4
    """So many requests are no load, whatever others have: a batch of four costs hardly more than
    one, and an idle mesh must not scatter conversations. Above a worker's batch it would queue."""
    cool_after_s: float = 300.0
    """A hot prefix stays so until it was not asked for so long. Its conversations stay where they
    are; by then their KV blocks have mostly been reused."""


MAX_HOT_PREFIXES = 4096
"""Those asked for longest ago cool first."""


class PrefixAffinity:
    """Homes by prefix, bounded by load. The same in every gateway that sees the same load.

    Args:
        observe: called with what became of each request.
    """

    def __init__(
        self,
        tuning: AffinityTuning | None = None,
        *,
        observe: Callable[[AffinityOutcome], None] = lambda outcome: None,
    ) -> None:
        self._tuning = tuning or AffinityTuning()
        self._observe = observe
        self._hot_until_s: OrderedDict[int, float] = OrderedDict()
        self._without_prefix = ShortestQueue()

    def choose(
        self, request: RoutingRequest, candidates: Sequence[Candidate], random: Random
    ) -> Candidate:
        """The home of the request's prefix, or the first worker after it that has room."""
        if not request.prefix_keys:
            self._observe(AffinityOutcome.NONE)
            return self._without_prefix.choose(request, candidates, random)
        bounds = _Bounds(candidates, self._tuning)
        key = request.prefix_keys[0]
        for key in request.prefix_keys:
            if self._is_hot(key, request.now_s):
                continue
            owner = home(key, candidates)
            if bounds.has_room(owner):
                self._observe(AffinityOutcome.HOME)
                return owner
            if key != request.prefix_keys[-1]:
                self._heat(key, request.now_s)
        order = ranked(key, candidates)
        chosen = next(filter(bounds.has_room, order), order[0])
        outcome = AffinityOutcome.HOME if chosen is order[0] else AffinityOutcome.SPILL
        self._observe(outcome)
        return chosen

    def _is_hot(self, key: int, now_s: float) -> bool:
        until_s = self._hot_until_s.get(key)
        if until_s is None:
            return False
        if until_s <= now_s:
            del self._hot_until_s[key]
            return False
        self._heat(key, now_s)
        return True

    def _heat(self, key: int, now_s: float) -> None:
        self._hot_until_s[key] = now_s + self._tuning.cool_after_s
        self._hot_until_s.move_to_end(key)
        if len(self._hot_until_s) > MAX_HOT_PREFIXES:
            self._hot_until_s.popitem(last=False)


class _Bounds:
    """How much each worker may have, given what all have."""

    def __init__(self, candidates: Sequence[Candidate], tuning: AffinityTuning) -> None:
        requests = sum(each.requests for each in candidates) + 1
        speed = sum(each.speed for each in candidates)
        self._per_speed = tuning.load_factor * requests / speed
        self._free_requests = tuning.free_requests

    def has_room(self, candidate: Candidate) -> bool:
        """Whether it may take one more. Some candidate always may."""
        bound = math.ceil(self._per_speed * candidate.speed)
        return candidate.requests < max(self._free_requests, bound)
