"""What one controller told of the workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from services.gateway.discovery.fleet import Worker

_order = itertools.count()


@dataclass(frozen=True, slots=True)
class Entry:
    """A worker as a controller described it; `order` grows with each description received."""

    worker: Worker
    order: int


class ControllerView:
    """The workers that one controller told of, and whether it has heard from all there may be.

    While the controller is learning, what it told before it was lost or restarted stays; once it is
    complete, what it has not told since is dropped. Each change returns the worker ids it touched.
    """

    def __init__(self) -> None:
        self.is_connected = True
        self.is_complete = False
        self.lost_at_s: float | None = None
        self._entries: dict[str, Entry] = {}
        self._unconfirmed: set[str] = set()

    def get(self, worker_id: str) -> Entry | None:
        """What the controller last told of a worker."""
        return self._entries.get(worker_id)

    def vouches(self, worker_id: str) -> bool:
        """Whether the controller says now what it told of a worker: it can be reached, and has told
        it since.
        """
        return self.is_connected and worker_id not in self._unconfirmed

    def replace(self, workers: Iterable[Worker], *, is_complete: bool) -> set[str]:
        """Takes over a snapshot."""
        self.is_connected = True
        self.lost_at_s = None
        self._unconfirmed = set(self._entries)
        return self.upsert(workers, is_complete=is_complete)

    def upsert(self, workers: Iterable[Worker], *, is_complete: bool) -> set[str]:
        """Takes over workers that are new or have changed."""
        touched: set[str] = set()
        for worker in workers:
            self._entries[worker.worker_id] = Entry(worker, next(_order))
            self._unconfirmed.discard(worker.worker_id)
            touched.add(worker.worker_id)
        self.is_complete = is_complete
        if is_complete and self._unconfirmed:
            for worker_id in self._unconfirmed:
                del self._entries[worker_id]
            touched |= self._unconfirmed
            self._unconfirmed = set()
        return touched

    def remove(self, worker_id: str, incarnation: str) -> set[str]:
        """Drops a worker, unless a newer incarnation has taken its place."""
        entry = self._entries.get(worker_id)
        if entry is None or entry.worker.incarnation != incarnation:
            return set()
        del self._entries[worker_id]
        self._unconfirmed.discard(worker_id)
        return {worker_id}

    def lose(self, now_s: float) -> set[str]:
        """Notes that the controller cannot be reached since `now_s`."""
        self.is_connected = False
        self.lost_at_s = now_s
        return set(self._entries)

    def clear(self) -> set[str]:
        """Drops all that the controller told."""
        touched = set(self._entries)
        self._entries.clear()
        self._unconfirmed.clear()
        return touched
