"""What every store of responses does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.openai.responses.metrics import ResponseMetrics
from services.gateway.openai.responses.store.base import ResponseStore, StoredResponse, StoreLimits
from services.gateway.openai.responses.store.sqlite import IN_MEMORY, SqliteStore
from services.mesh.errors import BrokenChainError, StoreError
from tests.fakes.response_store import FakeResponseStore

LIMITS = StoreLimits(max_responses=4, max_bytes=20_000, ttl_s=100.0)


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> CollectorRegistry:
    return CollectorRegistry()


Make = Callable[[], ResponseStore]


@pytest.fixture(params=["memory", "file", "fake"])
async def store(
    request: pytest.FixtureRequest, clock: Clock, tmp_path: Path, metrics: CollectorRegistry
) -> AsyncIterator[ResponseStore]:
    made: ResponseStore
    if request.param == "fake":
        made = FakeResponseStore(LIMITS, clock)
    else:
        path = IN_MEMORY if request.param == "memory" else str(tmp_path / "responses.sqlite")
        made = SqliteStore(path, LIMITS, ResponseMetrics(metrics), clock_s=clock)
    yield made
    await made.close()


def message(item_id: str, text: str = "Hello") -> dict[str, Any]:
    part = {"type": "input_text", "text": text}
    return {"id": item_id, "type": "message", "role": "user", "content": [part]}


def stored(
    response_id: str, *, text: str = "Hi é", status: str = "completed", **fields: Any
) -> StoredResponse:
    output = [message(f"msg_{response_id}_out", text)]
    return StoredResponse(
        response_id=response_id,
        owner=fields.pop("owner", ""),
        status=status,
        response=json.dumps({"id": response_id, "status": status, "output": output}),
        input_items=[message(f"msg_{response_id}_in")],
        **fields,
    )


async def put(store: ResponseStore, *responses: StoredResponse) -> None:
    for each in responses:
        ids = [f"msg_{each.response_id}_in", f"msg_{each.response_id}_out"]
        await store.put(each, ids)


async def kept(store: ResponseStore, *names: str) -> list[str]:
    return [name for name in names if await store.get(name, "") is not None]


async def test_what_is_put_is_there(store: ResponseStore) -> None:
    whole = stored("a", is_background=True, has_events=True, created_at_s=5.0, alive_at_s=6.0)
    await put(store, whole)
    assert await store.get("a", "") == whole
    assert await store.get("b", "") is None


async def test_nobody_else_sees_it(store: ResponseStore) -> None:
    await put(store, stored("a", owner="me"), stored("b", owner="me", previous_id="a"))
    for owner in ("", "you"):
        assert await store.get("a", owner) is None
        assert await store.chain("b", owner) == []
        assert await store.find_items(["msg_a_in"], owner) == {}
        assert not await store.delete("a", owner)
    assert [each.response_id for each in await store.chain("b", "me")] == ["a", "b"]


async def test_a_chain_of_somebody_elses_is_broken(store: ResponseStore) -> None:
    await put(store, stored("a", owner="me"), stored("b", owner="you", previous_id="a"))
    with pytest.raises(BrokenChainError):
        await store.chain("b", "you")


async def test_a_chain_is_oldest_first(store: ResponseStore) -> None:
    await put(
        store, stored("a"), stored("b", previous_id="a"), stored("c", previous_id="b"), stored("d")
    )
    assert [each.response_id for each in await store.chain("c", "")] == ["a", "b", "c"]
    assert await store.chain("none", "") == []


async def test_a_chain_with_a_gap_names_it(store: ResponseStore) -> None:
    await put(store, stored("a"), stored("b", previous_id="a"), stored("c", previous_id="b"))
    assert await store.delete("a", "")
    with pytest.raises(BrokenChainError) as raised:
        await store.chain("c", "")
    assert "'a' not found" in raised.value.message
    assert raised.value.field == "previous_response_id"


async def test_items_are_found_by_id(store: ResponseStore) -> None:
    await put(store, stored("a"), stored("b"))
    found = await store.find_items(["msg_a_in", "msg_b_out", "msg_none"], "")
    assert found == {"msg_a_in": message("msg_a_in"), "msg_b_out": message("msg_b_out", "Hi é")}
    await store.delete("a", "")
    assert "msg_a_in" not in await store.find_items(["msg_a_in"], "")


async def test_what_is_too_old_is_gone(store: ResponseStore, clock: Clock) -> None:
    await put(store, stored("a"))
    clock.now_s += 100
    assert await kept(store, "a") == ["a"]
    clock.now_s += 1
    assert await kept(store, "a") == []
    assert await store.chain("a", "") == []
    assert not await store.delete("a", "")
    assert (await store.sweep()).responses == 0


async def test_a_conversation_that_goes_on_is_kept(store: ResponseStore, clock: Clock) -> None:
    await put(store, stored("a"), stored("b", previous_id="a"), stored("c"))
    clock.now_s += 60
    await store.chain("b", "")
    clock.now_s += 60
    await store.sweep()
    assert await kept(store, "a", "b", "c") == ["a", "b"]


async def test_too_many_push_out_what_is_unused_for_longest(
    store: ResponseStore, clock: Clock
) -> None:
    for name in "abcd":
        clock.now_s += 1
        await put(store, stored(name))
    clock.now_s += 1
    await store.chain("a", "")
    clock.now_s += 1
    await put(store, stored("e"))
    assert await kept(store, *"abcde") == ["a", "c", "d", "e"]


async def test_too_large_push_out_what_is_unused_for_longest(
    store: ResponseStore, clock: Clock
) -> None:
    for name in "abc":
        clock.now_s += 1
        await put(store, stored(name, text="x" * 9_000))
    assert await kept(store, *"abc") == ["b", "c"]
    size = await store.sweep()
    assert size.responses == 2
    assert 18_000 < size.size_bytes < 20_000


async def test_what_is_larger_than_the_store_is_refused(store: ResponseStore) -> None:
    await put(store, stored("a"))
    with pytest.raises(StoreError):
        await put(store, stored("b", text="x" * 20_000))
    assert await kept(store, "a", "b") == ["a"]


async def test_what_runs_is_never_pushed_out(store: ResponseStore, clock: Clock) -> None:
    await put(store, stored("run", status="in_progress"))
    for name in "abcde":
        clock.now_s += 1
        await put(store, stored(name))
    assert await kept(store, "run", *"abcde") == ["run", "c", "d", "e"]


async def test_what_runs_ends_once(store: ResponseStore) -> None:
    running = stored("a", status="queued")
    await put(store, running)
    ended = stored("a", status="completed", text="Done")
    assert await store.update("a", "completed", ended.response, ["msg_a_out"])
    assert await store.get("a", "") == ended
    assert not await store.update("a", "cancelled", running.response, ())
    assert await store.get("a", "") == ended
    assert not await store.update("none", "completed", ended.response, ())


async def test_updates_count(store: ResponseStore) -> None:
    await put(store, stored("a", status="queued"))
    before = (await store.sweep()).size_bytes
    grown = stored("a", text="é" * 1_000)
    await store.update("a", "completed", grown.response, ())
    growth = len(grown.response.encode()) - len(stored("a", status="queued").response.encode())
    assert (await store.sweep()).size_bytes == before + growth
    await store.delete("a", "")
    assert (await store.sweep()).size_bytes == 0


async def test_whoever_makes_it_keeps_it_alive(store: ResponseStore, clock: Clock) -> None:
    await put(store, stored("a", status="in_progress"), stored("b"))
    clock.now_s += 5
    assert await store.keep_alive(["a", "b", "none"]) == {"a"}
    found = await store.get("a", "")
    assert found is not None
    assert found.alive_at_s == clock.now_s


async def test_events_come_in_order_from_any_place(store: ResponseStore) -> None:
    await put(store, stored("a", status="in_progress"))
    await store.add_events("a", 0, [b"0", b"1"])
    await store.add_events("a", 2, [b"2", b"3", b"4"])
    assert await store.events("a", -1, 10) == [b"0", b"1", b"2", b"3", b"4"]
    assert await store.events("a", 1, 2) == [b"2", b"3"]
    assert await store.events("a", 4, 10) == []
    assert await store.events("none", -1, 10) == []
    await store.delete("a", "")
    await store.add_events("a", 5, [b"5"])
    assert await store.events("a", -1, 10) == []


async def test_it_works_when_it_is_checked(store: ResponseStore) -> None:
    await store.check()
