"""Responses in a file: restarts, neighbours, and everything that can be wrong with it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.openai.responses.metrics import ResponseMetrics
from services.gateway.openai.responses.settings import ResponseSettings
from services.gateway.openai.responses.store import schema, sqlite
from services.gateway.openai.responses.store.base import StoredResponse, StoreLimits
from services.gateway.openai.responses.store.sqlite import SqliteStore
from services.gateway.openai.responses.store.tables import ResponseTables
from services.mesh.errors import StartError, StoreError

LIMITS = StoreLimits()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "responses.sqlite"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def opened(path: Path, registry: CollectorRegistry | None = None) -> SqliteStore:
    return SqliteStore(str(path), LIMITS, ResponseMetrics(registry or CollectorRegistry()))


def stored(response_id: str, text: str = "") -> StoredResponse:
    response = json.dumps({"id": response_id, "output": [], "text": text})
    return StoredResponse(response_id, "", "completed", response, [])


async def test_a_restart_loses_nothing(path: Path) -> None:
    first = opened(path)
    await first.put(stored("a"), ())
    await first.close()
    second = opened(path)
    assert await second.get("a", "") == stored("a")
    await second.close()


async def test_neighbours_share_the_file(path: Path) -> None:
    one, other = opened(path), opened(path)
    for number in range(20):
        await one.put(stored(f"one-{number}"), ())
        await other.put(stored(f"other-{number}"), ())
    assert await one.get("other-19", "") is not None
    assert (await other.sweep()).responses == 40
    await one.close()
    await other.close()


async def test_only_its_owner_reads_the_file(path: Path) -> None:
    store = opened(path)
    await store.put(stored("a"), ())
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    await store.close()


async def test_a_damaged_file_stops_nothing_but_the_store(
    path: Path, registry: CollectorRegistry
) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1_000)
    store = opened(path, registry)
    for _ in range(2):
        with pytest.raises(StoreError) as raised:
            await store.get("a", "")
        assert "not a database" in raised.value.message
        assert "'store': false" in raised.value.message
        assert str(path) not in raised.value.message
    failures = "tokenmesh_gateway_response_store_failures_total"
    assert registry.get_sample_value(failures, {"operation": "get"}) == 2
    path.rename(path.with_suffix(".damaged"))
    await store.put(stored("a"), ())
    assert await store.get("a", "") == stored("a")
    await store.close()


async def test_a_full_disk_fails_writing_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "PRAGMAS", schema.PRAGMAS + "PRAGMA max_page_count = 40;")
    store = opened(path)
    await store.put(stored("a", "x" * 10_000), ())
    with pytest.raises(StoreError, match="full"):
        await store.put(stored("b", "x" * 200_000), ())
    assert await store.get("a", "") is not None
    assert await store.delete("a", "")
    await store.put(stored("c"), ())
    await store.close()


async def test_another_one_that_writes_for_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_LIMIT_S", 0.01)
    store = opened(path)
    await store.put(stored("a"), ())
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            await store.put(stored("b"), ())
        assert await store.get("a", "") is not None
        other.execute("ROLLBACK")
    await store.put(stored("b"), ())
    await store.close()


async def test_a_file_of_another_release_is_not_touched(path: Path) -> None:
    store = opened(path)
    await store.put(stored("a"), ())
    await store.close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    store = opened(path)
    with pytest.raises(StoreError, match="version 99"):
        await store.get("a", "")
    await store.close()


def test_a_file_that_cannot_be_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "responses.sqlite", tmp_path):
        with pytest.raises(StartError, match="--responses-db"):
            opened(path)


async def test_more_calls_than_may_wait_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "MAX_PENDING", 0)
    store = opened(path)
    with pytest.raises(StoreError, match="overloaded"):
        await store.get("a", "")
    await store.close()


async def test_a_disk_that_hangs_holds_nobody_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CALL_LIMIT_S", 0.05)
    store = opened(path)
    go_on = threading.Event()
    monkeypatch.setattr(ResponseTables, "get", lambda *_: go_on.wait())
    with pytest.raises(StoreError, match="has not answered"):
        await store.get("a", "")
    with pytest.raises(StoreError, match="has not answered"):
        await store.put(stored("a"), ())
    go_on.set()
    monkeypatch.undo()
    # What was to be written was.
    async with asyncio.timeout(20):
        while await store.get("a", "") is None:
            await asyncio.sleep(0.01)
    await store.close()


async def test_what_is_dropped_is_counted(path: Path, registry: CollectorRegistry) -> None:
    store = SqliteStore(str(path), StoreLimits(max_responses=1), ResponseMetrics(registry))
    await store.put(stored("a"), ())
    await store.put(stored("b"), ())
    await store.sweep()
    value = registry.get_sample_value
    assert value("tokenmesh_gateway_response_evictions_total", {"cause": "count"}) == 1
    assert value("tokenmesh_gateway_responses_stored") == 1
    assert value("tokenmesh_gateway_responses_stored_bytes") == len(stored("b").response) + 2
    await store.close()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"db": ""}, "--responses-db"),
        ({"limits": StoreLimits(max_responses=0)}, "--responses-max"),
        ({"limits": StoreLimits(max_bytes=1)}, "--responses-max-bytes"),
        ({"limits": StoreLimits(ttl_s=0)}, "--responses-ttl"),
        ({"limits": StoreLimits(ttl_s=float("nan"))}, "--responses-ttl"),
        ({"max_background": -1}, "--responses-max-background"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], named: str) -> None:
    with pytest.raises(StartError) as raised:
        ResponseSettings(**settings)  # type: ignore[arg-type]
    assert str(raised.value).startswith(f"{named} ")
