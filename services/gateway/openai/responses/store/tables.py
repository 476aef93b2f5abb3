"""What a store does to its tables, in one thread and one transaction each."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from services.gateway.openai.responses.items import Item
from services.gateway.openai.responses.store import schema, statements
from services.gateway.openai.responses.store.base import StoredResponse, StoreLimits, StoreSize
from services.mesh.errors import BrokenChainError, StoreError

MAX_CHAIN = 10_000
"""Responses that one conversation may be made of: as many messages as a prompt may have."""
MAX_CHAIN_BYTES = 64 << 20
"""What they may hold together. More fits no request to a worker."""
VACUUM_PAGES = 256
"""Given back to the file system after a sweep. More keeps others from writing for longer."""

AGE, COUNT, BYTES = "age", "count", "bytes"


class ResponseTables:
    """One connection to the tables.

    Args:
        clock_s: seconds since the epoch.
        on_evict: called with the cause, AGE, COUNT or BYTES, and how many were dropped.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        limits: StoreLimits,
        clock_s: Callable[[], float],
        on_evict: Callable[[str, int], None],
    ) -> None:
        """Raises:
        StoreError: another release has made the tables.
        """
        self._connection = connection
        self._limits = limits
        self._clock_s = clock_s
        self._on_evict = on_evict
        connection.executescript(schema.PRAGMAS)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, schema.VERSION):
            raise StoreError(
                f"the response store is of version {version}, and this release knows "
                f"{schema.VERSION} only"
            )
        if version == 0:
            connection.executescript(schema.TABLES)

    def put(self, stored: StoredResponse, items: Collection[str]) -> None:
        """See ResponseStore."""
        written_input = json.dumps(stored.input_items, ensure_ascii=False)
        size_bytes = _size_bytes(stored.response, written_input)
        if size_bytes > self._limits.max_bytes:
            raise StoreError(
                f"the response has {size_bytes} bytes, more than the {self._limits.max_bytes} of "
                "the whole store"
            )
        now_s = self._clock_s()
        with self._transaction():
            self._connection.execute(
                statements.ADD,
                (
                    *(stored.response_id, stored.owner, stored.status, stored.response),
                    *(written_input, stored.previous_id, stored.is_background),
                    *(stored.has_events, stored.created_at_s, stored.alive_at_s),
                    *(now_s, size_bytes),
                ),
            )
            self._add_items(stored.response_id, items)
            self._evict(now_s)

    def get(self, response_id: str, owner: str) -> StoredResponse | None:
        """See ResponseStore."""
        row = self._connection.execute(
            statements.GET, (response_id, owner, self._oldest_s())
        ).fetchone()
        return None if row is None else _stored(row)

    def chain(self, response_id: str, owner: str) -> list[StoredResponse]:
        """See ResponseStore."""
        named = {"id": response_id, "owner": owner, "oldest": self._oldest_s()}
        with self._transaction():
            rows = self._connection.execute(
                statements.CHAIN, {**named, "max_depth": MAX_CHAIN}
            ).fetchall()
            if not rows:
                return []
            first_id, missing_id, size_bytes = rows[-1]
            if len(rows) > MAX_CHAIN or size_bytes > MAX_CHAIN_BYTES:
                raise BrokenChainError(
                    f"The conversation of '{response_id}' has grown too long to be continued: at "
                    f"most {MAX_CHAIN} responses of {MAX_CHAIN_BYTES} bytes together.",
                    reason="CONTEXT_LENGTH_EXCEEDED",
                    field="previous_response_id",
                )
            if missing_id is not None:
                raise BrokenChainError(
                    f"Previous response with id '{missing_id}' not found, which '{first_id}' "
                    "continues.",
                    field="previous_response_id",
                )
            ids = [row[0] for row in reversed(rows)]
            now_s = self._clock_s()
            self._connection.executemany(statements.USE, [(now_s, each) for each in ids])
            return [_stored(self._row(each)) for each in ids]

    def find_items(self, item_ids: Collection[str], owner: str) -> dict[str, Item]:
        """See ResponseStore."""
        found: dict[str, Item] = {}
        for item_id in item_ids:
            row = self._connection.execute(
                statements.GET_BY_ITEM, (item_id, owner, self._oldest_s())
            ).fetchone()
            if row is not None:
                stored = _stored(row)
                items = (*stored.input_items, *json.loads(stored.response)["output"])
                for item in items:
                    if item["id"] == item_id:
                        found[item_id] = item
        return found

    def delete(self, response_id: str, owner: str) -> bool:
        """See ResponseStore."""
        with self._transaction():
            cursor = self._connection.execute(
                statements.DELETE, (response_id, owner, self._oldest_s())
            )
            return cursor.rowcount > 0

    def update(self, response_id: str, status: str, response: str, items: Collection[str]) -> bool:
        """See ResponseStore."""
        with self._transaction():
            cursor = self._connection.execute(
                statements.UPDATE, (status, response, len(response.encode()), response_id)
            )
            if cursor.rowcount == 0:
                return False
            self._add_items(response_id, items)
            self._evict(self._clock_s())
            return True

    def keep_alive(self, response_ids: Collection[str]) -> set[str]:
        """See ResponseStore."""
        now_s = self._clock_s()
        alive = set()
        with self._transaction():
            for response_id in response_ids:
                cursor = self._connection.execute(statements.KEEP_ALIVE, (now_s, response_id))
                if cursor.rowcount:
                    alive.add(response_id)
        return alive

    def add_events(self, response_id: str, first: int, events: Sequence[bytes]) -> None:
        """See ResponseStore."""
        with self._transaction():
            cursor = self._connection.execute(statements.GROW, (sum(map(len, events)), response_id))
            if cursor.rowcount:
                self._connection.executemany(
                    statements.ADD_EVENT,
                    [(response_id, first + place, event) for place, event in enumerate(events)],
                )

    def events(self, response_id: str, after: int, limit: int) -> list[bytes]:
        """See ResponseStore."""
        rows = self._connection.execute(statements.EVENTS, (response_id, after, limit))
        return [event for (event,) in rows]

    def sweep(self) -> StoreSize:
        """See ResponseStore."""
        with self._transaction():
            self._evict(self._clock_s())
        self._connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
        return self.size()

    def check(self) -> None:
        """See ResponseStore."""
        with self._transaction():
            self._connection.execute(statements.CHECK, (self._clock_s(),))

    def size(self) -> StoreSize:
        """How much is kept."""
        row = self._connection.execute(statements.SIZE).fetchone()
        return StoreSize(*row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # Not deferred: two processes that read first and write then would both be told to give up.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            # Where the disk is full, SQLite has already rolled back.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _oldest_s(self) -> float:
        return self._clock_s() - self._limits.ttl_s

    def _row(self, response_id: str) -> tuple[object, ...]:
        row: tuple[object, ...] = self._connection.execute(
            statements.GET_LINK, (response_id,)
        ).fetchone()
        return row

    def _add_items(self, response_id: str, items: Collection[str]) -> None:
        self._connection.executemany(statements.ADD_ITEM, [(item, response_id) for item in items])

    def _evict(self, now_s: float) -> None:
        cursor = self._connection.execute(statements.DROP_UNUSED, (now_s - self._limits.ttl_s,))
        if cursor.rowcount:
            self._on_evict(AGE, cursor.rowcount)
        size = self.size()
        while size.responses > self._limits.max_responses and self._drop_oldest():
            self._on_evict(COUNT, 1)
            size = self.size()
        while size.size_bytes > self._limits.max_bytes and self._drop_oldest():
            self._on_evict(BYTES, 1)
            size = self.size()

    def _drop_oldest(self) -> bool:
        return self._connection.execute(statements.DROP_OLDEST).rowcount > 0


def _size_bytes(*texts: str) -> int:
    return sum(len(text.encode()) for text in texts)


def _stored(row: tuple[object, ...]) -> StoredResponse:
    (response_id, owner, status, response, written_input, previous_id, *rest) = row
    is_background, has_events, created_at_s, alive_at_s = rest
    return StoredResponse(
        response_id=str(response_id),
        owner=str(owner),
        status=str(status),
        response=str(response),
        input_items=json.loads(str(written_input)),
        previous_id=None if previous_id is None else str(previous_id),
        is_background=bool(is_background),
        has_events=bool(has_events),
        created_at_s=float(str(created_at_s)),
        alive_at_s=float(str(alive_at_s)),
    )
