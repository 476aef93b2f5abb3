"""A gateway: the real directory, breakers and routing; what it sends requests to is the world's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from services.controller import registry
from services.controller.deltas import Delta
from services.gateway.discovery.directory import Directory, Removal, RemovalCause
from services.gateway.discovery.fleet import Capacity, Load, Model, Worker, WorkerKey
from services.gateway.links.breaker import Breaker
from services.gateway.routing import POLICIES
from services.gateway.routing.base import Candidate, RoutingRequest
from services.mesh.errors import MeshError
from tests.simulation.controllers import Controller, WatchStream
from tests.simulation.workers import MODEL
from tests.simulation.world import Connection, Host, World

REQUEST_EVERY_S = 0.4
RETRY_S = (0.1, 1.0)
SILENCE_LIMIT_S = 3.0
MAX_ATTEMPTS = 3

_MODELS = (Model(MODEL),)

Send = Callable[[Host, Worker], bool | None]
"""Sends a request from a host to a worker: True for an answer, False for a refusal, None when
nothing comes back.
"""


class SimulatedGateway:
    """One gateway. It is never restarted: it is what it remembers that is put to the test."""

    def __init__(
        self, world: World, host: Host, controllers: Sequence[Controller], send: Send, policy: str
    ) -> None:
        self.host = host
        self.directory = Directory(clock_s=lambda: world.now_s)
        self.answered: Counter[WorkerKey] = Counter()
        self.misdirected: Counter[WorkerKey] = Counter()
        """Requests that went to a process that is gone."""
        self.unserved = 0
        """Requests for which all attempts failed, or for which there was nobody."""
        self._world = world
        self._controllers = controllers
        self._send = send
        self._policy = POLICIES[policy]()
        self._breakers: dict[WorkerKey, Breaker] = {}
        for controller in controllers:
            self._watch(controller)
        self._sweep()
        self._ask()

    def known(self) -> set[WorkerKey]:
        """The workers that it knows."""
        return {worker.key for worker in self.directory.workers()}

    def _watch(self, controller: Controller) -> None:
        if self.host.is_silent or controller.host.is_silent or not controller.host.is_alive:
            self._again(controller)
            return
        stream: WatchStream

        def lost() -> None:
            self.directory.lose_controller(controller.host.name)
            self._again(controller)

        connection = Connection(
            self._world, self.host, controller.host, lost, lambda: controller.unwatch(stream)
        )
        stream = WatchStream(connection, lambda delta: self._on_delta(controller, delta))
        connection.to_server(
            lambda: controller.watch(stream, lambda found: self._on_snapshot(controller, found))
        )

    def _again(self, controller: Controller) -> None:
        self._world.after(self._world.random.uniform(*RETRY_S), lambda: self._watch(controller))

    def _on_snapshot(self, controller: Controller, snapshot: registry.Snapshot) -> None:
        self.directory.apply_snapshot(
            controller.host.name,
            [_seen(worker) for worker in snapshot.workers],
            is_complete=snapshot.completeness is registry.Completeness.COMPLETE,
        )

    def _on_delta(self, controller: Controller, delta: Delta) -> None:
        self.directory.apply_delta(
            controller.host.name,
            [_seen(worker) for worker in delta.upserted],
            [
                Removal(each.worker_id, each.incarnation, RemovalCause(each.cause.value))
                for each in delta.removed
            ],
            is_complete=delta.completeness is registry.Completeness.COMPLETE,
        )

    def _sweep(self) -> None:
        self.directory.forget_stale()
        self._world.after(1.0, self._sweep)

    def _ask(self) -> None:
        if not self.host.is_silent:
            self._attempt(frozenset(), MAX_ATTEMPTS)
        self._world.after(REQUEST_EVERY_S, self._ask)

    def _attempt(self, tried: frozenset[WorkerKey], left: int) -> None:
        worker = self._pick(tried) if left else None
        if worker is None:
            self.unserved += 1
            return
        breaker = self._breakers[worker.key]
        breaker.begin(self._world.now_s)
        answer = self._send(self.host, worker)
        if answer:
            self.answered[worker.key] += 1
            breaker.succeed()
            return
        self.misdirected[worker.key] += 1
        delay_s = self._world.latency_s() if answer is False else SILENCE_LIMIT_S
        self._world.after(delay_s, lambda: self._fail(worker, tried, left))

    def _fail(self, worker: Worker, tried: frozenset[WorkerKey], left: int) -> None:
        self._breakers[worker.key].trip(self._world.now_s)
        for controller in self._controllers:
            host = controller.host
            if host.is_alive and not host.is_silent and not self.host.is_silent:
                controller.suspect(worker.worker_id, worker.incarnation)
        self._attempt(tried | {worker.key}, left - 1)

    def _pick(self, tried: frozenset[WorkerKey]) -> Worker | None:
        try:
            workers = self.directory.resolve(MODEL).workers
        except MeshError:
            return None
        able = {
            worker.worker_id: worker
            for worker in workers
            if worker.key not in tried
            and self._breakers.setdefault(worker.key, Breaker()).admits(self._world.now_s)
        }
        if not able:
            return None
        candidates = [Candidate(worker_id, 0, 1.0) for worker_id in able]
        request = RoutingRequest((self._world.random.randrange(8),), self._world.now_s)
        return able[self._policy.choose(request, candidates, self._world.random).worker_id]


def _seen(worker: registry.Worker) -> Worker:
    """A worker as it comes out at the other end of the contract."""
    return Worker(
        worker_id=worker.worker_id,
        incarnation=worker.incarnation,
        address=worker.address,
        models=_MODELS,
        draining=worker.state is registry.WorkerState.DRAINING,
        capacity=Capacity(max_running=worker.capacity.max_running),
        load=Load(running=worker.load.running),
        attached_at_s=worker.attached_at_s,
    )
