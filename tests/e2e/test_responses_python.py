"""/v1/responses through Envoy, by OpenAI's own Python SDK, unchanged."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response

from services.cli.up.notice import MeshNotice
from services.cli.up.preflight import DEMO_MODEL_NAME
from tests.e2e.conftest import SCRIPTED_MODEL

# What the reference documents, less what belongs to services that are not offered.
DOCUMENTED = set(Response.model_fields) - {
    "access_programs",
    "image",
    "input_transformations",
    "moderation",
    "prompt_cache_diagnostics",
    "prompt_cache_options",
    "prompt_cache_retention",
    "tool_usage",
}


@pytest.fixture
def client(mesh: MeshNotice) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=mesh.base_url, api_key="unused", max_retries=0) as opened:
        yield opened


@pytest.fixture
async def async_client(mesh: MeshNotice) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=mesh.base_url, api_key="unused", max_retries=0
    ) as opened:
        yield opened


def test_a_response_has_every_documented_field(mesh: MeshNotice, client: openai.OpenAI) -> None:
    body = {"model": SCRIPTED_MODEL, "input": "Hello", "max_output_tokens": 5, "seed": 1}
    told = httpx.post(f"{mesh.base_url}/responses", json=body)
    assert told.headers["content-type"] == "application/json"
    assert told.headers["x-tokenmesh-seed"] == "1"
    assert set(told.json()) >= DOCUMENTED
    response = Response.model_validate(told.json())
    assert (response.object, response.status) == ("response", "incomplete")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.output_tokens == 5
    assert response.output_text
    assert client.responses.retrieve(response.id).to_dict() == told.json()


def test_everything_at_once(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model=SCRIPTED_MODEL,
        instructions="Be brief.",
        input=[
            {"role": "developer", "content": "Speak English."},
            {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": "Go on."},
        ],
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=7,
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        metadata={"topic": "greeting"},
        parallel_tool_calls=False,
        truncation="disabled",
        service_tier="auto",
        prompt_cache_key="key",
        safety_identifier="somebody",
        text={"format": {"type": "text"}, "verbosity": "low"},
        store=False,
    )
    assert (response.temperature, response.top_p, response.top_logprobs) == (0.5, 0.9, 2)
    assert response.metadata == {"topic": "greeting"}
    assert (response.prompt_cache_key, response.safety_identifier) == ("key", "somebody")
    message = response.output[0]
    assert message.type == "message"
    text = message.content[0]
    assert text.type == "output_text"
    assert text.logprobs is not None
    assert [len(token.top_logprobs) for token in text.logprobs] == [2] * 7
    assert b"".join(bytes(token.bytes) for token in text.logprobs).decode() == text.text
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_a_stream_says_what_a_body_says(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": SCRIPTED_MODEL,
        "input": "Hello",
        "extra_body": {"seed": 3, "min_tokens": 5},
    }
    whole = client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-1] == "response.completed"
    assert final.status == whole.status == "completed"
    assert final.output_text == whole.output_text
    assert final.id.startswith("resp_")
    raw = list(client.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in raw] == list(range(len(raw)))


def test_events_on_the_wire(mesh: MeshNotice) -> None:
    body = {"model": SCRIPTED_MODEL, "input": "Hello", "max_output_tokens": 2, "stream": True}
    told = httpx.post(f"{mesh.base_url}/responses", json=body)
    assert told.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert told.headers["cache-control"] == "no-store"
    *events, end = told.text.split("\n\n")
    assert end == ""
    for number, event in enumerate(events):
        kind = event.partition("\n")[0].removeprefix("event: ")
        data = event.partition("\n")[2]
        assert data.startswith(f'data: {{"type":"{kind}","sequence_number":{number},')
    assert events[-1].startswith("event: response.incomplete\n")
    delta = next(event for event in events if "output_text.delta" in event)
    assert re.fullmatch(
        r"event: response\.output_text\.delta\n"
        r'data: \{"type":"response\.output_text\.delta","sequence_number":4,'
        r'"item_id":"msg_[0-9a-f]{32}","output_index":0,"content_index":0,"delta":"[^"]+",'
        r'"logprobs":\[\]\}',
        delta,
    )


def test_a_conversation_on_the_server(client: openai.OpenAI) -> None:
    first = client.responses.create(model=SCRIPTED_MODEL, input="One", max_output_tokens=2)
    second = client.responses.create(
        model=SCRIPTED_MODEL, input="Two", previous_response_id=first.id, max_output_tokens=2
    )
    assert second.previous_response_id == first.id
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens
    # Pages are fetched one after the other.
    items = list(client.responses.input_items.list(second.id, limit=2, order="asc"))
    assert [getattr(item, "role", "") for item in items] == ["user", "assistant", "user"]
    newest = next(iter(client.responses.input_items.list(second.id, limit=1)))
    assert newest.id == items[-1].id
    client.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError) as broken:
        client.responses.create(model=SCRIPTED_MODEL, input="x", previous_response_id=second.id)
    assert broken.value.code == "previous_response_not_found"


async def test_background(async_client: openai.AsyncOpenAI) -> None:
    response = await async_client.responses.create(
        model=SCRIPTED_MODEL, input="Hello", max_output_tokens=3, background=True
    )
    assert response.status == "queued"
    while response.status in ("queued", "in_progress"):
        response = await async_client.responses.retrieve(response.id)
    assert response.status == "incomplete"
    assert response.output_text
    with pytest.raises(openai.BadRequestError, match="Cannot cancel"):
        await async_client.responses.cancel(response.id)
    stream = await async_client.responses.create(
        model=SCRIPTED_MODEL, input="Hello", max_output_tokens=3, background=True, stream=True
    )
    events = [event async for event in stream]
    assert events[0].type == "response.created"
    again = await async_client.responses.retrieve(
        events[0].response.id, stream=True, starting_after=2
    )
    rest = [event async for event in again]
    assert [event.to_dict() for event in rest] == [event.to_dict() for event in events[3:]]


def test_input_tokens_are_those_of_the_answer(client: openai.OpenAI) -> None:
    first = client.responses.create(
        model=SCRIPTED_MODEL, instructions="Be brief.", input="One", max_output_tokens=2
    )
    assert first.usage is not None
    counted = client.responses.input_tokens.count(
        model=SCRIPTED_MODEL, instructions="Be brief.", input="One"
    )
    assert counted.to_dict() == {
        "object": "response.input_tokens",
        "input_tokens": first.usage.input_tokens,
    }
    longer = client.responses.input_tokens.count(
        model=SCRIPTED_MODEL, input="Two", previous_response_id=first.id
    )
    assert longer.input_tokens > counted.input_tokens
    with pytest.raises(openai.BadRequestError) as bad:
        client.responses.input_tokens.count(model=SCRIPTED_MODEL, input=[{"role": "boss"}])  # type: ignore[list-item]
    assert bad.value.param == "input[0].role"


def test_errors_are_the_sdks_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.responses.create(model=SCRIPTED_MODEL, input="x", temperature=3, stream=True)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as model:
        client.responses.create(model="nobody", input="x")
    assert model.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as tool:
        client.responses.create(
            model=SCRIPTED_MODEL, input="x", tools=[{"type": "web_search_preview"}]
        )
    assert tool.value.param == "tools[0].type"
    with pytest.raises(openai.NotFoundError) as response:
        client.responses.retrieve("resp_nowhere")
    assert "resp_nowhere" in response.value.message
    assert response.value.request_id


def test_wrong_types_name_their_field(mesh: MeshNotice) -> None:
    for body, param in (
        ({"max_output_tokens": "x"}, "max_output_tokens"),
        ({"instructions": 3}, "instructions"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": "x", "text": "x"}, "text"),
    ):
        told = httpx.post(f"{mesh.base_url}/responses", json={"model": SCRIPTED_MODEL, **body})
        assert told.status_code == 400
        assert told.json()["error"]["param"] == param


def test_nulls_anywhere_are_as_absent(mesh: MeshNotice) -> None:
    names = (
        *("instructions", "stream", "temperature", "top_p", "max_output_tokens", "top_logprobs"),
        *("tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "store", "metadata"),
        *("previous_response_id", "background", "include", "truncation", "service_tier", "user"),
        *("stream_options", "max_tool_calls", "conversation", "prompt", "prompt_cache_key"),
    )
    body = {"model": SCRIPTED_MODEL, "input": "Hello", **dict.fromkeys(names)}
    told = httpx.post(f"{mesh.base_url}/responses", json=body)
    assert told.status_code == 200, told.text


def test_a_browser_may_delete(mesh: MeshNotice) -> None:
    asked = {"origin": "http://localhost:3000", "access-control-request-method": "DELETE"}
    allowed = httpx.options(f"{mesh.base_url}/responses/resp_1", headers=asked)
    assert "DELETE" in allowed.headers["access-control-allow-methods"]


def test_a_real_model_goes_on_with_its_conversation(demo_mesh: MeshNotice) -> None:
    with openai.OpenAI(base_url=demo_mesh.base_url, api_key="unused", max_retries=0) as client:
        first = client.responses.create(
            model=DEMO_MODEL_NAME, input="What is the capital of France?", temperature=0
        )
        assert "Paris" in first.output_text
        with client.responses.stream(
            model=DEMO_MODEL_NAME,
            input="What is the capital of Japan?",
            previous_response_id=first.id,
            temperature=0,
        ) as stream:
            stream.until_done()
            second = stream.get_final_response()
        assert "Tokyo" in second.output_text
        again = client.responses.retrieve(second.id)
        assert again.output_text == second.output_text
