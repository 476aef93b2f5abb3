"""Responses in SQLite: one file that the gateways of a machine share, or this process's memory.

All of it happens in one thread, so that neither a slow disk nor another process that writes holds
up the event loop. What fails closes the file: the next call opens it anew, so that a store which
was repaired, or moved away, works again without a restart.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import structlog

from services.gateway.openai.responses.items import Item
from services.gateway.openai.responses.metrics import ResponseMetrics
from services.gateway.openai.responses.store.base import StoredResponse, StoreLimits, StoreSize
from services.gateway.openai.responses.store.tables import ResponseTables
from services.mesh.errors import MeshError, StartError, StoreError

log = structlog.get_logger()

IN_MEMORY = ":memory:"
BUSY_LIMIT_S = 5.0
"""How long a call waits for another process that writes. Longer rides out slower disks."""

CALL_LIMIT_S = 10.0
"""How long whoever calls waits for the thread. An answer is not held back longer by a disk that
hangs; what was to be written may still be."""

MAX_PENDING = 1_024
"""Calls that may wait for the thread. More are refused: the disk does not keep up."""

_P = ParamSpec("_P")
_R = TypeVar("_R")
Call = Callable[Concatenate[ResponseTables, _P], _R]


class SqliteStore:
    """A ResponseStore in a file, or in memory for ":memory:".

    Args:
        clock_s: seconds since the epoch; the same for all who share the file.
    """

    def __init__(
        self,
        path: str,
        limits: StoreLimits,
        metrics: ResponseMetrics,
        *,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """Raises:
        StartError: there can be no file at `path`. A damaged one does not stop the start.
        """
        self._path = path
        self._limits = limits
        self._metrics = metrics
        self._clock_s = clock_s
        self._thread = ThreadPoolExecutor(1, "response-store")
        self._pending = 0
        self._connection: sqlite3.Connection | None = None
        self._tables: ResponseTables | None = None
        self._failure = ""
        if path != IN_MEMORY:
            _make_file(Path(path))

    async def put(self, stored: StoredResponse, items: Collection[str]) -> None:
        """See ResponseStore."""
        await self._call("put", ResponseTables.put, stored, items)

    async def get(self, response_id: str, owner: str) -> StoredResponse | None:
        """See ResponseStore."""
        return await self._call("get", ResponseTables.get, response_id, owner)

    async def chain(self, response_id: str, owner: str) -> list[StoredResponse]:
        """See ResponseStore."""
        return await self._call("chain", ResponseTables.chain, response_id, owner)

    async def find_items(self, item_ids: Collection[str], owner: str) -> dict[str, Item]:
        """See ResponseStore."""
        return await self._call("find_items", ResponseTables.find_items, item_ids, owner)

    async def delete(self, response_id: str, owner: str) -> bool:
        """See ResponseStore."""
        return await self._call("delete", ResponseTables.delete, response_id, owner)

    async def update(
        self, response_id: str, status: str, response: str, items: Collection[str]
    ) -> bool:
        """See ResponseStore."""
        return await self._call(
            "update", ResponseTables.update, response_id, status, response, items
        )

    async def keep_alive(self, response_ids: Collection[str]) -> set[str]:
        """See ResponseStore."""
        return await self._call("keep_alive", ResponseTables.keep_alive, response_ids)

    async def add_events(self, response_id: str, first: int, events: Sequence[bytes]) -> None:
        """See ResponseStore."""
        await self._call("add_events", ResponseTables.add_events, response_id, first, events)

    async def events(self, response_id: str, after: int, limit: int) -> list[bytes]:
        """See ResponseStore."""
        return await self._call("events", ResponseTables.events, response_id, after, limit)

    async def sweep(self) -> StoreSize:
        """See ResponseStore."""
        size = await self._call("sweep", ResponseTables.sweep)
        self._metrics.tell_size(size.responses, size.size_bytes)
        return size

    async def check(self) -> None:
        """See ResponseStore."""
        await self._call("check", ResponseTables.check)

    async def close(self) -> None:
        """See ResponseStore."""
        closed = asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                await closed
        except TimeoutError:
            log.warning("the response store was not closed in time", file=self._path)
        self._thread.shutdown(wait=False)

    async def _call(
        self, operation: str, call: Call[_P, _R], *args: _P.args, **kwargs: _P.kwargs
    ) -> _R:
        if self._pending >= MAX_PENDING:
            raise self._metrics.counted(operation, StoreError("the response store is overloaded"))
        self._pending += 1
        began_s = time.perf_counter()
        done = asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: self._run(call, *args, **kwargs)
        )
        done.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                result = await asyncio.shield(done)
        except (StoreError, TimeoutError) as error:
            failure = error if isinstance(error, StoreError) else _hung()
            self._note_failure(failure.message)
            raise self._metrics.counted(operation, failure) from error.__cause__
        self._note_failure("")
        self._metrics.observe(operation, time.perf_counter() - began_s)
        return result

    def _ended(self, done: asyncio.Future[_R]) -> None:
        self._pending -= 1
        if not done.cancelled():
            # Nobody may be there any more to take it.
            done.exception()

    def _run(self, call: Call[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """In the thread."""
        try:
            if self._tables is None:
                self._tables = self._connect()
            return call(self._tables, *args, **kwargs)
        except MeshError:
            raise
        except (sqlite3.Error, OSError, ValueError) as error:
            # ValueError: what was stored is no JSON any more.
            if self._path != IN_MEMORY and not _passes(error):
                self._disconnect()
            raise _failure(str(error)) from error

    def _connect(self) -> ResponseTables:
        connection = sqlite3.connect(self._path, timeout=BUSY_LIMIT_S, isolation_level=None)
        self._connection = connection
        return ResponseTables(connection, self._limits, self._clock_s, self._metrics.count_evicted)

    def _disconnect(self) -> None:
        connection, self._connection, self._tables = self._connection, None, None
        if connection is not None:
            connection.close()

    def _note_failure(self, failure: str) -> None:
        if failure == self._failure:
            return
        self._failure = failure
        if failure:
            log.error("the response store fails", file=self._path, failure=failure)
        else:
            log.info("the response store works again", file=self._path)


def _failure(why: str) -> StoreError:
    return StoreError(
        f"the response store does not work just now: {why}. Requests with 'store': false and "
        "without 'previous_response_id' are answered"
    )


def _hung() -> StoreError:
    return _failure(f"its disk has not answered for {CALL_LIMIT_S:g} s")


def _passes(error: Exception) -> bool:
    """Whether the connection is as good as before."""
    code = getattr(error, "sqlite_errorcode", None)
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL)


def _make_file(path: Path) -> None:
    """Creates the file where there is none, for its owner's eyes only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StartError(
            f"--responses-db is {str(path)!r}, which cannot be written: {error.strerror}"
        ) from error
