"""Picks the worker for a request: who serves the model, is well, and is the policy's choice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from random import Random

from services.gateway.discovery.directory import RETRY_AFTER_S, Directory, Resolution
from services.gateway.discovery.fleet import WorkerKey
from services.gateway.links.outliers import outliers
from services.gateway.links.variant import Variant
from services.gateway.links.worker_link import WorkerLink
from services.gateway.links.worker_links import WorkerLinks
from services.gateway.metrics import GatewayMetrics
from services.gateway.requests.prompt_head import prompt_keys
from services.gateway.routing.base import RoutingPolicy, RoutingRequest
from services.mesh.errors import MeshError, NoWorkerError
from tokenmesh.worker.v1 import worker_pb2


class Dispatch:
    """Chooses workers by a routing policy, one instance of it for each model.

    Args:
        policy_name: for metrics.
        make_policy: makes a policy for a model that is asked for the first time.
    """

    def __init__(
        self,
        directory: Directory,
        links: WorkerLinks,
        *,
        policy_name: str,
        make_policy: Callable[[], RoutingPolicy],
        metrics: GatewayMetrics,
        random: Random,
    ) -> None:
        self._directory = directory
        self._links = links
        self._policy_name = policy_name
        self._make_policy = make_policy
        self._policies: dict[str, RoutingPolicy] = {}
        self._choices = metrics.routing_choices
        self._random = random

    def resolve(self, name: str) -> Resolution:
        """What a name stands for.

        Raises:
            ModelNotFoundError, NoWorkerError: as `Directory.resolve`.
        """
        return self._directory.resolve(name)

    def free_places(self, name: str) -> float:
        """How many more requests the workers of a model should take; infinite where that is not
        known, or where there is none to wait for.
        """
        try:
            workers = self.resolve(name).workers
        except MeshError:
            return math.inf
        now_s = time.monotonic()
        links = [self._links.link(worker) for worker in workers]
        free = [link.free_places() for link in links if link.is_available(now_s)]
        return sum(free) if free else math.inf

    def pick(
        self,
        resolution: Resolution,
        tried: Collection[WorkerKey] = (),
        start: worker_pb2.Start | None = None,
        *,
        like: Variant | None = None,
        on_probation: bool = False,
    ) -> WorkerLink:
        """The worker to send a request to. `tried` holds those that are out.

        What is no generation has no `start`, and so no affinity. With `like`, the worker can go on
        with what such a variant of the model has begun. With `on_probation`, no other request is on
        probation there.

        Raises:
            NoWorkerError: nobody is left.
        """
        now_s = time.monotonic()
        links: dict[str, WorkerLink] = {}
        for worker in resolution.workers:
            link = self._links.link(worker)
            if (
                worker.key not in tried
                and not link.is_draining
                and link.is_available(now_s)
                and not (on_probation and link.has_probation)
            ):
                links[worker.worker_id] = link
        if like is not None:
            links = _likest(links, resolution.model.name, like)
        if not links:
            raise NoWorkerError(
                f"no worker that serves {resolution.name!r} can be reached just now; "
                "try again soon",
                retry_after_s=RETRY_AFTER_S,
            )
        policy = self._policies.get(resolution.model.name)
        if policy is None:
            policy = self._policies[resolution.model.name] = self._make_policy()
        for worker_id in outliers(
            {worker_id: link.latency.inter_token_s(now_s) for worker_id, link in links.items()}
        ):
            del links[worker_id]
        candidates = [link.candidate(now_s) for link in links.values()]
        keys = () if start is None or len(candidates) == 1 else prompt_keys(start)
        chosen = policy.choose(RoutingRequest(keys, now_s), candidates, self._random)
        self._choices.labels(self._policy_name, chosen.worker_id).inc()
        return links[chosen.worker_id]

    def can_go_on(self, resolution: Resolution, *, like: Variant | None) -> bool:
        """Whether some worker that does not drain could go on with what such a variant began."""
        now_s = time.monotonic()
        links = (self._links.link(worker) for worker in resolution.workers)
        return any(
            not link.is_draining
            and link.is_available(now_s)
            and (variant := link.variants.get(resolution.model.name)) is not None
            and (like is None or variant.continues(like))
            for link in links
        )

    async def wait_for_change(self, limit_s: float) -> None:
        """Returns when a worker may have become available, or after `limit_s` seconds."""
        await self._links.availability.wait(limit_s)


def _likest(links: dict[str, WorkerLink], model_name: str, like: Variant) -> dict[str, WorkerLink]:
    """Of the links to workers that continue a variant, those that are most like it."""
    likeness = {
        worker_id: variant.likeness(like)
        for worker_id, link in links.items()
        if (variant := link.variants.get(model_name)) is not None and variant.continues(like)
    }
    most = max(likeness.values(), default=0)
    return {worker_id: links[worker_id] for worker_id in likeness if likeness[worker_id] == most}
