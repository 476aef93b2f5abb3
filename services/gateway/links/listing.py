"""What controllers tell of a worker, as routing and failover use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.gateway.discovery.fleet import Load, Model, Worker
from services.gateway.links.variant import Variant
from services.gateway.routing.base import estimate_requests, free_places, running_limit


class Listing:
    """The latest description of one worker, and how this gateway's own requests change it."""

    def __init__(self) -> None:
        self.is_draining = False
        self.speed = 1.0
        self.max_running = 0
        """Sequences that it computes at once. 0 when it has not told."""
        self.variants: Mapping[str, Variant] = {}
        """What it serves, by the models' own names."""
        self._models: Sequence[Model] = ()
        self._load = Load()
        self._in_flight_at_report = 0

    def describe(self, worker: Worker, in_flight: int) -> bool:
        """Takes over a description. Returns whether the worker serves something else now.

        `in_flight` counts the requests of this gateway that run there.
        """
        self.is_draining = worker.draining
        self.speed = worker.capacity.speed
        self.max_running = worker.capacity.max_running
        if worker.load is not self._load:
            self._load = worker.load
            self._in_flight_at_report = in_flight
        if worker.models == self._models:
            return False
        self._models = worker.models
        self.variants = {model.name: Variant.of(model) for model in worker.models}
        return True

    def requests(self, in_flight: int) -> int:
        """Running and waiting there: this gateway's own as of now, those of others as reported."""
        reported = self._load.running + self._load.waiting
        return estimate_requests(in_flight, reported, self._in_flight_at_report)

    def free_places(self, in_flight: int) -> float:
        """How many more requests it should take. Negative when it has too many already."""
        load = self._load
        kv_used_share = load.kv_used_tokens / max(1, load.kv_total_tokens)
        limit = running_limit(self.max_running, load.running, load.waiting, kv_used_share)
        return free_places(self.requests(in_flight), limit)
