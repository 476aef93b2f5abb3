"""Stored responses are found, followed and ended, whoever made them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.openai.responses import reading as module
from services.gateway.openai.responses.archive import DEAD_AFTER_S, DIED, ResponseArchive
from services.gateway.openai.responses.background import BackgroundResponses
from services.gateway.openai.responses.metrics import ResponseMetrics
from services.gateway.openai.responses.paging import page_json
from services.gateway.openai.responses.reading import Reading
from services.gateway.openai.responses.store.base import StoredResponse, StoreLimits
from services.mesh.errors import InvalidRequestError, NotFoundError
from tests.fakes.response_store import FakeResponseStore
from tests.fakes.responses_client import events_in

CREATED = b'event: response.created\ndata: {"type":"response.created","sequence_number":0}\n\n'
QUEUED = b'event: response.queued\ndata: {"type":"response.queued","sequence_number":1}\n\n'
DONE = b'event: response.completed\ndata: {"type":"response.completed","sequence_number":2}\n\n'


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> FakeResponseStore:
    return FakeResponseStore(StoreLimits(), clock)


@pytest.fixture
def reading(store: FakeResponseStore, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Reading:
    monkeypatch.setattr(module, "FOLLOW_INTERVAL_S", 0.001)
    monkeypatch.setattr(module, "LAST_EVENT_LIMIT_S", 0.003)
    metrics = ResponseMetrics(CollectorRegistry())
    nobody: Any = None
    return Reading(
        ResponseArchive(store, metrics, clock), BackgroundResponses(nobody, store, metrics, 1)
    )


async def put(store: FakeResponseStore, status: str, *events: bytes, **fields: Any) -> None:
    response = json.dumps({"id": "r", "status": status, "error": None, "output": []})
    kept = {"is_background": True, "has_events": True, "alive_at_s": 1_000.0, **fields}
    await store.put(StoredResponse("r", "", status, response, [], **kept), ())
    await store.add_events("r", 0, events)


async def follow(reading: Reading, after: int | None = None) -> list[Any]:
    return [event async for data in reading.events("r", "", after) for event in events_in(data)]


async def test_whoever_made_it_is_gone(
    reading: Reading, store: FakeResponseStore, clock: Clock
) -> None:
    await put(store, "in_progress", CREATED)
    clock.now_s += DEAD_AFTER_S
    assert json.loads(await reading.response_json("r", ""))["status"] == "in_progress"
    clock.now_s += 1
    response = json.loads(await reading.response_json("r", ""))
    assert response["status"] == "failed"
    assert response["error"] == {"code": "server_error", "message": DIED}


async def test_the_events_of_one_that_is_gone_come_to_an_end(
    reading: Reading, store: FakeResponseStore, clock: Clock
) -> None:
    await put(store, "in_progress", CREATED, QUEUED)
    clock.now_s += DEAD_AFTER_S + 1
    first, second, last = await follow(reading)
    assert [first["type"], second["type"]] == ["response.created", "response.queued"]
    assert (last["type"], last["sequence_number"]) == ("response.failed", 2)
    assert last["response"]["error"]["message"] == DIED


async def test_one_that_another_gateway_cancelled_ends_with_an_error(
    reading: Reading, store: FakeResponseStore
) -> None:
    await put(store, "in_progress", CREATED)
    assert json.loads(await reading.cancel("r", ""))["status"] == "cancelled"
    *_, last = await follow(reading)
    assert (last["type"], last["code"]) == ("error", "response_cancelled")


@pytest.mark.parametrize(
    ("after", "numbers"), [(None, [0, 1, 2]), (0, [1, 2]), (1, [2]), (2, []), (99, [])]
)
async def test_events_from_any_number_on(
    reading: Reading, store: FakeResponseStore, after: int | None, numbers: list[int]
) -> None:
    await put(store, "completed", CREATED, QUEUED, DONE)
    assert [event["sequence_number"] for event in await follow(reading, after)] == numbers


async def test_what_cannot_be_followed(reading: Reading, store: FakeResponseStore) -> None:
    with pytest.raises(NotFoundError):
        await follow(reading)
    await put(store, "completed", has_events=False)
    with pytest.raises(InvalidRequestError) as unkept:
        await follow(reading)
    assert unkept.value.field == "stream"
    await put(store, "completed", CREATED)
    with pytest.raises(InvalidRequestError) as negative:
        await follow(reading, -1)
    assert negative.value.field == "starting_after"


ITEMS = [{"id": f"i{number}"} for number in range(5)]


def page(**query: Any) -> Any:
    given = {"after": None, "before": None, "limit": None, "order": None, **query}
    return json.loads(page_json(ITEMS, **given))


@pytest.mark.parametrize(
    ("query", "ids", "has_more"),
    [
        ({}, "43210", False),
        ({"order": "asc"}, "01234", False),
        ({"order": "asc", "limit": 2}, "01", True),
        ({"order": "asc", "limit": 2, "after": "i1"}, "23", True),
        ({"order": "asc", "limit": 2, "after": "i2"}, "34", False),
        ({"order": "asc", "after": "i4"}, "", False),
        ({"order": "desc", "limit": 2, "after": "i3"}, "21", True),
        ({"order": "asc", "before": "i2"}, "01", False),
        ({"order": "asc", "after": "i0", "before": "i4", "limit": 2}, "12", True),
    ],
)
def test_pages(query: dict[str, Any], ids: str, has_more: bool) -> None:
    found = page(**query)
    assert found["object"] == "list"
    assert "".join(item["id"][1] for item in found["data"]) == ids
    assert found["has_more"] is has_more
    assert found["first_id"] == (f"i{ids[0]}" if ids else None)
    assert found["last_id"] == (f"i{ids[-1]}" if ids else None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "i9"}, "after"),
        ({"before": "i9"}, "before"),
    ],
)
def test_pages_that_cannot_be(query: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        page(**query)
    assert raised.value.field == field
