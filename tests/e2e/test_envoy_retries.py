"""What Envoy asks a second time: only what no gateway has begun to answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody

from tests.e2e.processes import running_envoy
from tokenmesh.openai.v1 import chat_pb2, chat_pb2_grpc


class Stopping(chat_pb2_grpc.ChatCompletionServiceServicer):
    """Answers the first call as a gateway does that is told to stop just as it comes."""

    def __init__(self, code: grpc.StatusCode, *, begins: bool) -> None:
        self.calls = 0
        self._code = code
        self._begins = begins

    async def CreateChatCompletion(
        self, request: chat_pb2.CreateChatCompletionRequest, context: Any
    ) -> AsyncIterator[HttpBody]:
        self.calls += 1
        body = HttpBody(content_type="application/json", data=b'{"calls":%d}' % self.calls)
        if self.calls > 1:
            yield body
            return
        if self._begins:
            yield body
        await context.abort(self._code, "stopping")


@asynccontextmanager
async def serving(servicer: Stopping) -> AsyncIterator[str]:
    server = grpc.aio.server()
    chat_pb2_grpc.add_ChatCompletionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("code", "begins", "calls"),
    [
        (grpc.StatusCode.CANCELLED, False, 2),
        (grpc.StatusCode.CANCELLED, True, 1),
        (grpc.StatusCode.UNAVAILABLE, False, 1),
        (grpc.StatusCode.INTERNAL, False, 1),
    ],
)
async def test_a_call_is_asked_again_only_where_it_was_not_begun(
    folder: Path, code: grpc.StatusCode, begins: bool, calls: int
) -> None:
    servicer = Stopping(code, begins=begins)
    async with serving(servicer) as address:
        edge = running_envoy(folder, address)
        settings = await asyncio.to_thread(edge.__enter__)
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
                url = f"http://127.0.0.1:{settings.listen_port}/v1/chat/completions"
                response = await client.post(url, json={"model": "m"})
        finally:
            await asyncio.to_thread(edge.__exit__, None, None, None)
    assert servicer.calls == calls
    assert (response.status_code == 200) == (calls == 2 or begins)
