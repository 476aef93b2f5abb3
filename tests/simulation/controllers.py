"""A controller: the real leases, registry, suspicion and deltas; the streams are the world's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from services.controller.clock import TICK_S, LeaseClock
from services.controller.deltas import Delta, PendingChanges
from services.controller.leases import LeaseTerms
from services.controller.membership import Membership
from services.controller.registry import Change, Load, Snapshot, Worker, WorkerState
from services.controller.suspicion import Dialled, Verdict, judge
from services.mesh.errors import MeshError
from tests.simulation.world import Connection, Host, World

TERMS = LeaseTerms()
REST_S = 0.5
DIAL_LIMIT_S = 1.0


@dataclass(eq=False)
class AttachStream:
    """A worker's stream, as the controller has it."""

    connection: Connection
    lease_id: str = ""
    worker_id: str = ""


@dataclass(eq=False)
class WatchStream:
    """A gateway's stream, as the controller has it."""

    connection: Connection
    on_delta: Callable[[Delta], None]
    pending: PendingChanges = field(default_factory=lambda: PendingChanges(64))


class Controller:
    """One controller host; a restart forgets everything."""

    def __init__(
        self, world: World, host: Host, dial: Callable[[Host, str], Dialled], skew_s: float
    ) -> None:
        self.host = host
        self.skew_s = skew_s
        """How far its wall clock is off. It may jump."""
        self._world = world
        self._dial = dial
        self._leases = 0
        self.begin()

    def begin(self) -> None:
        """Starts the process."""
        host = self.host
        host.life += 1
        host.is_alive = True
        host.is_stopped = False
        self._clock = LeaseClock(lambda: self._world.now_s)
        self.membership = Membership(TERMS, started_at_s=self._clock.now_s(), max_workers=100)
        self._attached: dict[str, AttachStream] = {}
        self._suspected: set[str] = set()
        life = host.life
        self._world.after(0.0, lambda: self._tick(life))

    def end(self) -> None:
        """Kills the process."""
        self.host.is_alive = False

    def hello(
        self, stream: AttachStream, worker: Worker, on_granted: Callable[[str], None]
    ) -> None:
        """A worker wants a lease: its address is dialled first."""
        number = self.membership.next_hello_number()
        life = self.host.life
        self._world.after(
            self._world.latency_s(), lambda: self._grant(stream, worker, number, on_granted, life)
        )

    def _grant(
        self,
        stream: AttachStream,
        worker: Worker,
        number: int,
        on_granted: Callable[[str], None],
        life: int,
    ) -> None:
        if not self._is_running(life) or not stream.connection.is_open:
            return
        if self._dial(self.host, worker.address) is not Dialled.ANSWERED:
            stream.connection.close()
            return
        self._leases += 1
        lease_id = f"{self.host.name}/{self.host.life}/{self._leases}"
        self._expire()
        worker = _at(worker, self._world.now_s + self.skew_s)
        try:
            grant = self.membership.attach(
                worker, lease_id, hello_number=number, now_s=self._clock.now_s()
            )
        except MeshError:
            stream.connection.close()
            return
        if grant.taken_over is not None:
            older = self._attached.pop(grant.taken_over.lease_id, None)
            if older is not None:
                older.connection.close()
        stream.lease_id, stream.worker_id = lease_id, worker.worker_id
        self._attached[lease_id] = stream
        stream.connection.to_client(lambda: on_granted(lease_id))

    def heartbeat(self, stream: AttachStream, state: WorkerState, running: int) -> None:
        """A worker is there."""
        try:
            self.membership.renew(
                stream.lease_id,
                state=state,
                load=Load(running=running),
                cached_prefixes=(),
                now_s=self._clock.now_s(),
                wall_clock_s=self._world.now_s + self.skew_s,
            )
        except MeshError:
            stream.connection.close()

    def leave(self, stream: AttachStream) -> None:
        """A worker gives its lease up."""
        self.membership.leave(stream.lease_id)
        stream.connection.close()

    def detach(self, stream: AttachStream) -> None:
        """A worker's stream has ended."""
        if self._attached.pop(stream.lease_id, None) is None:
            return
        lease = self.membership.leases.get(stream.lease_id)
        if lease is not None:
            self.suspect(lease.worker_id, lease.incarnation)

    def watch(self, stream: WatchStream, on_snapshot: Callable[[Snapshot], None]) -> None:
        """A gateway watches from now on."""
        registry = self.membership.registry

        def on_change(change: Change) -> None:
            stream.pending.add(change)
            self._world.after(0.0, send)

        def send() -> None:
            delta = stream.pending.take()
            if delta is not None and stream.connection.is_open:
                stream.connection.to_client(lambda: stream.on_delta(delta))

        snapshot = registry.watch(stream, on_change)
        stream.connection.to_client(lambda: on_snapshot(snapshot))

    def unwatch(self, stream: WatchStream) -> None:
        """A gateway's stream has ended."""
        self.membership.registry.unwatch(stream)

    def suspect(self, worker_id: str, incarnation: str) -> None:
        """Has a worker looked into."""
        lease = self.membership.leases.of_worker(worker_id)
        if lease is None or lease.incarnation != incarnation or worker_id in self._suspected:
            return
        self._suspected.add(worker_id)
        self._look(worker_id, lease.lease_id, self._clock.now_s(), self.host.life)

    def _look(self, worker_id: str, lease_id: str, suspected_at_s: float, life: int) -> None:
        if not self._is_running(life):
            return
        lease = self.membership.leases.of_worker(worker_id)
        worker = self.membership.registry.get(worker_id)
        if lease is None or worker is None or lease.lease_id != lease_id:
            self._suspected.discard(worker_id)
            return
        verdict = judge(
            self._dial(self.host, worker.address),
            attached=lease_id in self._attached,
            suspected_at_s=suspected_at_s,
            renewed_at_s=lease.renewed_at_s,
            now_s=self._clock.now_s(),
            heartbeat_interval_s=TERMS.heartbeat_interval_s,
        )
        if verdict is Verdict.DIAL_AGAIN:
            self._world.after(REST_S, lambda: self._look(worker_id, lease_id, suspected_at_s, life))
            return
        self._suspected.discard(worker_id)
        if verdict is Verdict.EXPIRE:
            self.membership.expire_early(lease_id)
            self._close(lease_id)

    def _tick(self, life: int) -> None:
        if not self.host.is_alive or self.host.life != life:
            return
        if not self.host.is_stopped:
            self._expire()
        self._world.after(TICK_S, lambda: self._tick(life))

    def _expire(self) -> None:
        for lease in self.membership.expire_due(self._clock.now_s()):
            self._close(lease.lease_id)

    def _close(self, lease_id: str) -> None:
        stream = self._attached.pop(lease_id, None)
        if stream is not None:
            stream.connection.close()

    def _is_running(self, life: int) -> bool:
        return self.host.is_alive and self.host.life == life and not self.host.is_stopped


def _at(worker: Worker, wall_clock_s: float) -> Worker:
    return replace(worker, attached_at_s=wall_clock_s, renewed_at_s=wall_clock_s)
