"""Picks the worker for a request: who serves the model, is well, and is the policy's choice."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from random import Random

from services.gateway.discovery.directory import RETRY_AFTER_S, Directory, Resolution
from services.gateway.links.worker_link import WorkerLink
from services.gateway.links.worker_links import WorkerLinks
from services.gateway.metrics import GatewayMetrics
from services.gateway.requests.prompt_head import prompt_keys
from services.gateway.routing.base import RoutingPolicy, RoutingRequest
from services.mesh.errors import NoWorkerError
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

    def pick(
        self,
        resolution: Resolution,
        tried: Collection[str] = (),
        start: worker_pb2.Start | None = None,
    ) -> WorkerLink:
        """The worker to send a request to. `tried` holds the ids of those that are out.

        What is no generation has no `start`, and so no affinity.

        Raises:
            NoWorkerError: nobody is left.
        """
        now_s = time.monotonic()
        links: dict[str, WorkerLink] = {}
        for worker in resolution.workers:
            link = self._links.link(worker)
            if worker.worker_id not in tried and link.is_available(now_s):
                links[worker.worker_id] = link
        if not links:
            raise NoWorkerError(
                f"no worker that serves {resolution.name!r} can be reached just now; "
                "try again soon",
                retry_after_s=RETRY_AFTER_S,
            )
        policy = self._policies.get(resolution.model.name)
        if policy is None:
            policy = self._policies[resolution.model.name] = self._make_policy()
        candidates = [link.candidate(now_s) for link in links.values()]
        keys = () if start is None or len(candidates) == 1 else prompt_keys(start)
        chosen = policy.choose(RoutingRequest(keys, now_s), candidates, self._random)
        self._choices.labels(self._policy_name, chosen.worker_id).inc()
        return links[chosen.worker_id]
