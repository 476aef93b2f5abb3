"""What a worker gets of the JSON that clients send, through real Envoy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import running_envoy
from tests.fakes.fake_worker import MODEL, FakeWorker, fake_model
from tests.fakes.gateway_mesh import controller, eventually, gateway
from tokenmesh.mesh.v1 import model_pb2
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
