"""Acts on what Membership decides: tells streams, counts, logs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence

import structlog

from services.controller import leases
from services.controller.attachment import AttachStream
from services.controller.clock import TICK_S, LeaseClock
from services.controller.leases import Attachment, Grant, Lease
from services.controller.membership import Membership
from services.controller.metrics import ControllerMetrics
from services.controller.registry import Load, Model, Registry, Worker, WorkerState
from services.mesh.errors import WorkerLostError, WorkerNotFoundError

log = structlog.get_logger()

_EVENTS = {
    Attachment.NEW: "granted",
    Attachment.RECONNECT: "reconnected",
    Attachment.RESTART: "restarted",
}


class LeaseKeeper:
    """Every lease, and the stream that holds it."""

    def __init__(
        self, membership: Membership, clock: LeaseClock, metrics: ControllerMetrics
    ) -> None:
        self._membership = membership
        self._clock = clock
        self._metrics = metrics
        self._holding: dict[str, AttachStream] = {}

    @property
    def registry(self) -> Registry:
        """What is known of the workers."""
        return self._membership.registry

    def next_hello_number(self) -> int:
        """Numbers the Hellos in the order in which they came."""
        return self._membership.next_hello_number()

    def grant(self, stream: AttachStream, worker: Worker, hello_number: int) -> Grant:
        """Gives the worker on this stream a lease. An older stream of the worker ends.

        Raises:
            AbortedError, ExhaustedError: as Membership.attach.
        """
        self.expire_due()
        known = self.registry.get(worker.worker_id)
        grant = self._membership.attach(
            worker, uuid.uuid4().hex, hello_number=hello_number, now_s=self._clock.now_s()
        )
        older = self._holding.pop(grant.taken_over.lease_id, None) if grant.taken_over else None
        if older is not None:
            self._metrics.lease_event("superseded")
            older.close(leases.superseded(worker.worker_id))
        if older is not None and known is not None and grant.attachment is Attachment.RESTART:
            log.warning(
                "another process took over a worker id whose stream was alive; ids must be unique",
                worker_id=worker.worker_id,
                old_address=known.address,
                new_address=worker.address,
            )
        stream.lease = grant.lease
        self._holding[grant.lease.lease_id] = stream
        self._metrics.lease_event(_EVENTS[grant.attachment])
        log.info(
            "lease granted",
            worker_id=worker.worker_id,
            incarnation=worker.incarnation,
            address=worker.address,
            attachment=grant.attachment.value,
        )
        return grant

    def renew(
        self, lease: Lease, *, state: WorkerState, load: Load, cached_prefixes: tuple[int, ...]
    ) -> None:
        """Renews a lease.

        Raises:
            ProtocolError, DeadlineError: as LeaseTable.renew.
        """
        self._membership.renew(
            lease.lease_id,
            state=state,
            load=load,
            cached_prefixes=cached_prefixes,
            now_s=self._clock.now_s(),
            wall_clock_s=time.time(),
        )
        self._metrics.lease_event("renewed")

    def set_state(self, lease: Lease, state: WorkerState) -> None:
        """Notes a worker's state ahead of its next heartbeat."""
        self._membership.set_state(lease.lease_id, state)

    def set_models(self, lease: Lease, models: Sequence[Model]) -> None:
        """Notes what a worker serves now."""
        self._membership.set_models(lease.lease_id, models)

    def leave(self, lease: Lease, reason: str) -> None:
        """Ends a lease that its worker gives up."""
        self._membership.leave(lease.lease_id)
        self._metrics.lease_event("left")
        log.info("worker left", worker_id=lease.worker_id, reason=reason)

    def detach(self, stream: AttachStream) -> Lease | None:
        """Notes that a stream has ended. Its lease, when that lives on without it."""
        stream.close()
        if stream.lease is None:
            return None
        self._holding.pop(stream.lease.lease_id, None)
        return self._membership.leases.get(stream.lease.lease_id)

    def stream_of(self, worker_id: str) -> tuple[Lease, AttachStream]:
        """The lease and the stream of a worker.

        Raises:
            WorkerNotFoundError: the worker holds no lease.
            WorkerLostError: its stream is broken just now.
        """
        lease = self._membership.leases.of_worker(worker_id)
        if lease is None:
            raise WorkerNotFoundError(f"no worker {worker_id!r} holds a lease")
        stream = self._holding.get(lease.lease_id)
        if stream is None:
            raise WorkerLostError(
                f"the connection to worker {worker_id!r} is broken just now",
                retry_after_s=self._membership.leases.terms.heartbeat_interval_s,
            )
        return lease, stream

    def lease_of(self, worker_id: str) -> Lease | None:
        """The lease of a worker."""
        return self._membership.leases.of_worker(worker_id)

    def is_attached(self, lease: Lease) -> bool:
        """Whether the stream that holds the lease is open."""
        return lease.lease_id in self._holding

    def expire_early(self, lease: Lease) -> None:
        """Ends the lease of a worker that was found dead."""
        self._membership.expire_early(lease.lease_id)
        self._expired(lease)

    def expire_due(self) -> None:
        """Ends the leases whose TTL has passed."""
        for lease in self._membership.expire_due(self._clock.now_s()):
            self._expired(lease)

    async def run(self) -> None:
        """Expires leases until cancelled."""
        while True:
            self.expire_due()
            self._metrics.count_workers(self.registry)
            self._metrics.set_revision(self.registry.revision)
            await asyncio.sleep(TICK_S)

    def _expired(self, lease: Lease) -> None:
        self._metrics.lease_event("expired")
        log.warning("lease expired", worker_id=lease.worker_id, incarnation=lease.incarnation)
        stream = self._holding.pop(lease.lease_id, None)
        if stream is not None:
            stream.close(leases.expired(lease.worker_id, self._membership.leases.terms))
