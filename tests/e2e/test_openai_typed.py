"""What a worker gets of the JSON that clients send, through real Envoy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from tests.e2e.processes import running_envoy
from tests.fakes.fake_worker import MODEL, FakeWorker, fake_model
from tests.fakes.gateway_mesh import controller, eventually, gateway
from tokenmesh.mesh.v1 import model_pb2
from tokenmesh.mesh.v1.generation_pb2 import SamplingParameters
from tokenmesh.worker.v1 import worker_pb2

SCHEMA = {
    "type": "object",
    "properties": {
        "zulu": {"type": "string", "description": "last comes first", "maxLength": 5},
        "alpha": {"anyOf": [{"type": "null"}, {"minimum": -0.5, "type": "number"}]},
        "mike": {"type": "array", "items": {"enum": ["z", "a", "m"]}, "minItems": 1},
    },
    "required": ["zulu", "alpha", "mike"],
    "additionalProperties": False,
}
CAPABILITIES = [
    model_pb2.CAPABILITY_CHAT,
    model_pb2.CAPABILITY_COMPLETE,
    model_pb2.CAPABILITY_TOOLS,
    model_pb2.CAPABILITY_CONSTRAINED_DECODING,
]


class Edge:
    """A mesh of a gateway and a fake worker behind Envoy."""

    def __init__(self, http: httpx.AsyncClient, worker: FakeWorker) -> None:
        self._http = http
        self._worker = worker

    async def start_of(self, path: str = "/chat/completions", **fields: object) -> worker_pb2.Start:
        """What the worker is told to start."""
        body = {"model": MODEL, **fields}
        if path == "/chat/completions":
            body.setdefault("messages", [{"role": "user", "content": "Hello"}])
        answer = await self._http.post(f"/v1{path}", json=body)
        assert answer.status_code == 200, answer.text
        return self._worker.starts[-1]


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    models = [fake_model(capabilities=CAPABILITIES)]
    async with (
        # Starting Envoy keeps this process from heartbeats.
        controller(lease_ttl_s=60.0) as controller_address,
        FakeWorker([controller_address], models=models) as worker,
        gateway(controller_address) as client,
    ):
        await client.wait_served(1)
        with running_envoy(tmp_path, client.address) as envoy:
            base_url = f"http://{envoy.listen_host}:{envoy.listen_port}"
            async with httpx.AsyncClient(base_url=base_url, timeout=60) as http:
                yield Edge(http, worker)
        await eventually(lambda: not worker.running)


async def test_the_order_of_keys_comes_through(edge: Edge) -> None:
    written = json.dumps(SCHEMA)
    asked = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}
    start = await edge.start_of(
        tools=[{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
        tool_choice="auto",
    )
    assert start.chat.tools[0].parameters == written
    for fields in (
        {"response_format": asked},
        {"guided_json": SCHEMA},
        {"structured_outputs": {"json": SCHEMA}},
        # A schema may come as a text, too.
        {"guided_json": written},
    ):
        start = await edge.start_of(**fields)
        assert start.sampling.constraint.json_schema.schema == written
    start = await edge.start_of("/completions", prompt="x", response_format=asked)
    assert start.sampling.constraint.json_schema.schema == written


SAMPLING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.25,
    "top_k": 7,
    "min_p": 0.125,
    "repetition_penalty": 1.5,
    "presence_penalty": -0.5,
    "frequency_penalty": 0.5,
    "seed": 12345,
    "n": 1,
    "best_of": 2,
    "min_tokens": 1,
    "stop": ["zz", "yy"],
    "stop_token_ids": [8, 9],
    "ignore_eos": True,
    "include_stop_str_in_output": True,
    "skip_special_tokens": False,
    "logit_bias": {"5": -100, "6": 1.5},
    "bad_words": ["x"],
    "prompt_logprobs": 3,
}
TYPED_SAMPLING = {
    **{name: SAMPLING[name] for name in SAMPLING if hasattr(SamplingParameters(), name)},
    "seed": "12345",
    "choices": 1,
    "include_stop_string": True,
    "prompt_top_logprobs": 3,
    "max_tokens": 9,
    "top_logprobs": 2,
}


async def test_every_field_of_a_chat_comes_through(edge: Edge) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1}'}}
    start = await edge.start_of(
        **SAMPLING,
        max_completion_tokens=9,
        logprobs=True,
        top_logprobs=2,
        priority=-4,
        messages=[
            {"role": "developer", "content": "d"},
            {"role": "user", "name": "bob", "content": [{"type": "text", "text": "u"}]},
            {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "hm"},
            {"role": "tool", "tool_call_id": "c1", "content": "t"},
        ],
        tools=[{"type": "function", "function": {"name": "f", "description": "g", "strict": True}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
        reasoning_effort="xhigh",
        add_generation_prompt=True,
        chat_template="{{ messages }}",
        chat_template_kwargs={"b": [1, None], "a": {"z": True}},
        documents=[{"text": "x"}],
    )
    assert plain(start.sampling) == TYPED_SAMPLING
    assert start.priority == 4
    assert plain(start.chat) == {
        "messages": [
            {"role": "ROLE_DEVELOPER", "content": [{"text": "d"}]},
            {"role": "ROLE_USER", "name": "bob", "content": [{"text": "u"}]},
            {
                "role": "ROLE_ASSISTANT",
                "tool_calls": [{"id": "c1", "name": "f", "arguments": '{"b": 1}'}],
                "reasoning": "hm",
            },
            {"role": "ROLE_TOOL", "tool_call_id": "c1", "content": [{"text": "t"}]},
        ],
        "tools": [{"name": "f", "description": "g", "strict": True}],
        "tool_choice": {"name": "f"},
        "parallel_tool_calls": False,
        "add_generation_prompt": True,
        "chat_template": "{{ messages }}",
        "chat_template_arguments": {
            "documents": [{"text": "x"}],
            "b": [1.0, None],
            "a": {"z": True},
        },
        "reasoning_effort": "REASONING_EFFORT_XHIGH",
    }


async def test_every_field_of_a_completion_comes_through(edge: Edge) -> None:
    start = await edge.start_of(
        "/completions", prompt=[[5, 6]], **SAMPLING, max_tokens=9, logprobs=2, echo=True, priority=1
    )
    assert plain(start.sampling) == TYPED_SAMPLING
    assert (start.priority, start.echo, list(start.token_ids.values)) == (-1, True, [5, 6])
    interval = await edge.start_of(
        "/completions", prompt="x", guided_choice=["b", "a"], stream=True, stream_interval=4
    )
    assert interval.sampling.stream_interval_tokens == 4
    assert list(interval.sampling.constraint.choices.values) == ["b", "a"]


def plain(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)
