"""Who holds a lease, and until when. Pure: the time is handed in, in seconds on any steady clock.

A lease lives for one TTL after the last heartbeat: at exactly that moment it has expired.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from services.mesh.errors import AbortedError, DeadlineError, ProtocolError


@dataclass(frozen=True)
class LeaseTerms:
    """What a lease asks of a worker. The TTL spans two heartbeats or more, so that one may be lost.

    Raises:
        ValueError: the terms contradict that.
    """

    ttl_s: float = 6.0
    heartbeat_interval_s: float = 2.0

    def __post_init__(self) -> None:
        if not self.heartbeat_interval_s > 0:
            raise ValueError(
                f"the heartbeat interval is {self.heartbeat_interval_s:g} s; it must be over 0"
            )
        if not self.ttl_s >= 2 * self.heartbeat_interval_s:
            raise ValueError(
                f"the lease TTL is {self.ttl_s:g} s; it must be at least twice the heartbeat "
                f"interval of {self.heartbeat_interval_s:g} s"
            )


class Attachment(Enum):
    """What an attach meant: an unknown worker, a connection that had broken, or a new process."""

    NEW = "new"
    RECONNECT = "reconnect"
    RESTART = "restart"


@dataclass(frozen=True)
class Lease:
    """One worker's lease. Each attach draws a new lease id, also when it continues a lease.

    `hello_number` tells which of a worker's Hellos came last, whichever is granted first.
    """

    lease_id: str
    worker_id: str
    incarnation: str
    hello_number: int
    renewed_at_s: float
    expires_at_s: float


@dataclass(frozen=True)
class Grant:
    """A granted lease, and the live one of the same worker that it took over."""

    lease: Lease
    attachment: Attachment
    taken_over: Lease | None


class LeaseTable:
    """All leases: at most one for each worker id."""

    def __init__(self, terms: LeaseTerms) -> None:
        self.terms = terms
        self._by_worker_id: dict[str, Lease] = {}
        self._by_lease_id: dict[str, Lease] = {}

    def __len__(self) -> int:
        return len(self._by_lease_id)

    def of_worker(self, worker_id: str) -> Lease | None:
        """The lease of a worker, whether or not it is due to expire."""
        return self._by_worker_id.get(worker_id)

    def get(self, lease_id: str) -> Lease | None:
        """The lease of that id; None once it has ended or was taken over."""
        return self._by_lease_id.get(lease_id)

    def grant(
        self, worker_id: str, incarnation: str, lease_id: str, *, hello_number: int, now_s: float
    ) -> Grant:
        """Gives the worker a lease, and takes away the one that it may have.

        Raises:
            AbortedError: a later Hello of the worker holds the lease already (LEASE_SUPERSEDED).
        """
        old = self._by_worker_id.get(worker_id)
        if old is not None and now_s >= old.expires_at_s:
            self.end(old.lease_id)
            old = None
        if old is not None and old.hello_number > hello_number:
            raise superseded(worker_id)
        lease = Lease(
            lease_id, worker_id, incarnation, hello_number, now_s, now_s + self.terms.ttl_s
        )
        if old is not None:
            self.end(old.lease_id)
        self._put(lease)
        if old is None:
            return Grant(lease, Attachment.NEW, None)
        same_process = old.incarnation == incarnation
        return Grant(lease, Attachment.RECONNECT if same_process else Attachment.RESTART, old)

    def renew(self, lease_id: str, now_s: float) -> Lease:
        """Lets the lease live for another TTL from now.

        Raises:
            ProtocolError: nobody holds a lease of that id (LEASE_MISMATCH).
            DeadlineError: the TTL has passed (LEASE_EXPIRED).
        """
        lease = self._by_lease_id.get(lease_id)
        if lease is None:
            raise ProtocolError(f"nobody holds the lease {lease_id!r}", reason="LEASE_MISMATCH")
        if now_s >= lease.expires_at_s:
            raise expired(lease.worker_id, self.terms)
        renewed = replace(lease, renewed_at_s=now_s, expires_at_s=now_s + self.terms.ttl_s)
        self._put(renewed)
        return renewed

    def end(self, lease_id: str) -> Lease | None:
        """Takes a lease away. None when nobody holds it."""
        lease = self._by_lease_id.pop(lease_id, None)
        if lease is not None:
            del self._by_worker_id[lease.worker_id]
        return lease

    def expire(self, now_s: float) -> list[Lease]:
        """Takes away, and returns, all leases whose TTL has passed."""
        due = [lease for lease in self._by_lease_id.values() if now_s >= lease.expires_at_s]
        for lease in due:
            self.end(lease.lease_id)
        return due

    def _put(self, lease: Lease) -> None:
        self._by_worker_id[lease.worker_id] = lease
        self._by_lease_id[lease.lease_id] = lease


def superseded(worker_id: str) -> AbortedError:
    """What the older of two Attach streams of one worker ends with."""
    return AbortedError(
        f"a newer Attach of worker {worker_id!r} has taken the lease over",
        reason="LEASE_SUPERSEDED",
    )


def expired(worker_id: str, terms: LeaseTerms) -> DeadlineError:
    """What an Attach stream ends with when its lease has run out."""
    return DeadlineError(
        f"the lease of worker {worker_id!r} has expired: no heartbeat came within "
        f"{terms.ttl_s:g} s, or its address could no longer be dialled; attach again",
        reason="LEASE_EXPIRED",
    )
