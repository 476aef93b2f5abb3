"""Leases and registry as one: a worker is in the registry for as long as it holds a lease. Pure.

`now_s` is on a steady clock; Worker's times are for people and come from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.controller.leases import Attachment, Grant, Lease, LeaseTable, LeaseTerms
from services.controller.registry import (
    Load,
    Model,
    Registry,
    RemovalCause,
    Worker,
    WorkerState,
)
from services.mesh.errors import ExhaustedError


class Membership:
    """Workers come, stay and go.

    For one TTL after `started_at_s` the registry is LEARNING: a worker that held a lease of the
    controller's last incarnation may yet attach. After that it is COMPLETE.
    """

    def __init__(self, terms: LeaseTerms, *, started_at_s: float, max_workers: int) -> None:
        self.registry = Registry()
        self.leases = LeaseTable(terms)
        self._complete_at_s = started_at_s + terms.ttl_s
        self._max_workers = max_workers
        self._hellos = 0

    def next_hello_number(self) -> int:
        """Numbers the Hellos in the order in which they came."""
        self._hellos += 1
        return self._hellos

    def attach(self, worker: Worker, lease_id: str, *, hello_number: int, now_s: float) -> Grant:
        """Grants a lease. A reconnecting worker keeps its load and the time since it is attached.

        Raises:
            AbortedError: a later Hello of the worker holds the lease already.
            ExhaustedError: as many workers are attached as may (WORKERS_EXHAUSTED).
        """
        known = self.registry.get(worker.worker_id)
        if known is None and len(self.registry) >= self._max_workers:
            raise ExhaustedError(
                f"{self._max_workers} workers are attached, which is the most that this controller "
                "takes; raise --max-workers",
                reason="WORKERS_EXHAUSTED",
            )
        grant = self.leases.grant(
            worker.worker_id,
            worker.incarnation,
            lease_id,
            hello_number=hello_number,
            now_s=now_s,
        )
        if grant.attachment is Attachment.RECONNECT and known is not None:
            worker = replace(
                worker,
                load=known.load,
                cached_prefixes=known.cached_prefixes,
                attached_at_s=known.attached_at_s,
            )
        self.registry.put(worker)
        return grant

    def renew(
        self,
        lease_id: str,
        *,
        state: WorkerState,
        load: Load,
        cached_prefixes: tuple[int, ...],
        now_s: float,
        wall_clock_s: float,
    ) -> None:
        """Renews a lease with what the heartbeat tells.

        Raises:
            ProtocolError, DeadlineError: as LeaseTable.renew.
        """
        lease = self.leases.renew(lease_id, now_s)
        self.registry.update(
            lease.worker_id,
            state=state,
            load=load,
            cached_prefixes=cached_prefixes,
            renewed_at_s=wall_clock_s,
        )

    def set_state(self, lease_id: str, state: WorkerState) -> None:
        """Notes a worker's state ahead of its next heartbeat. Ignores a lease that has ended."""
        lease = self.leases.get(lease_id)
        if lease is not None:
            self.registry.update(lease.worker_id, state=state)

    def set_models(self, lease_id: str, models: Sequence[Model]) -> None:
        """Notes what a worker serves now. Ignores a lease that has ended."""
        lease = self.leases.get(lease_id)
        if lease is not None:
            self.registry.update(lease.worker_id, models=tuple(models))

    def leave(self, lease_id: str) -> None:
        """Ends a lease that its worker gave up. Ignores one that has ended."""
        self._end(lease_id, RemovalCause.LEFT)

    def expire_early(self, lease_id: str) -> None:
        """Ends the lease of a worker that is known to be dead. Ignores one that has ended."""
        self._end(lease_id, RemovalCause.EXPIRED)

    def expire_due(self, now_s: float) -> list[Lease]:
        """Ends, and returns, the leases whose TTL has passed; ends LEARNING when it is time."""
        due = self.leases.expire(now_s)
        for lease in due:
            self.registry.remove(lease.worker_id, RemovalCause.EXPIRED)
        if now_s >= self._complete_at_s:
            self.registry.complete()
        return due

    def _end(self, lease_id: str, cause: RemovalCause) -> None:
        lease = self.leases.end(lease_id)
        if lease is not None:
            self.registry.remove(lease.worker_id, cause)
