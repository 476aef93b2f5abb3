"""Gathers the changes that a watch has not sent yet into one delta, within a bound. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.controller.registry import Change, Completeness, Removal, Worker


@dataclass(frozen=True)
class Delta:
    """All changes since an older revision: first the removals, then the upserts.

    A removal is meant for its incarnation only.
    """

    revision: int
    completeness: Completeness
    removed: tuple[Removal, ...]
    upserted: tuple[Worker, ...]


class PendingChanges:
    """What one watch has yet to send. Of a worker that changes often, only the newest is kept.

    Holds at most `limit` workers and removals. With more, it drops all and is `lagged` for good:
    the watch must begin anew with a snapshot.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lagged = False
        self._last: Change | None = None
        self._upserted: dict[str, Worker] = {}
        self._removed: dict[tuple[str, str], Removal] = {}

    def add(self, change: Change) -> None:
        """Keeps a change. Changes come in the order of their revisions."""
        if self.lagged:
            return
        self._last = change
        if change.removed is not None:
            self._upserted.pop(change.removed.worker_id, None)
            key = (change.removed.worker_id, change.removed.incarnation)
            self._removed[key] = change.removed
        if change.upserted is not None:
            self._upserted[change.upserted.worker_id] = change.upserted
        if len(self._upserted) + len(self._removed) > self.limit:
            self.lagged = True
            self._clear()

    def take(self) -> Delta | None:
        """All that is kept, which is then forgotten. None when there is nothing."""
        if self._last is None:
            return None
        delta = Delta(
            self._last.revision,
            self._last.completeness,
            tuple(self._removed.values()),
            tuple(self._upserted.values()),
        )
        self._clear()
        return delta

    def _clear(self) -> None:
        self._last = None
        self._upserted = {}
        self._removed = {}
