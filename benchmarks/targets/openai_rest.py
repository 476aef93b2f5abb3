"""OpenAI's chat completions over HTTP/1.1, one kept connection for each client.

Speaks just enough HTTP to cost little: the load generator shares the machine with what it loads.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from benchmarks.load import Answer, AnswerError, Ask
from benchmarks.targets import prompt

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens": ?(\d+)')
_END_OF_HEAD = b"\r\n\r\n"
_END_OF_CHUNKS = b"\r\n0\r\n\r\n"
_CONTENT = b'"content":"'
# The usage stands at the end of a body.
_TAIL_BYTES = 1024


class _HttpConnection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._arrivals_s: list[float] = []
        self._body_start = 0
        self._whole_bytes: int | None = None
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails the request that is under way."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(AnswerError(f"the connection was closed: {exc}"))

    def data_received(self, data: bytes) -> None:
        """Notes when content came, and whether the response is whole."""
        received = self._received
        received += data
        if _CONTENT in data:
            self._arrivals_s.append(time.perf_counter())
        if not self._body_start:
            end = received.find(_END_OF_HEAD)
            if end < 0:
                return
            self._body_start = end + len(_END_OF_HEAD)
            length = _LENGTH.search(received, 0, self._body_start)
            self._whole_bytes = self._body_start + int(length[1]) if length else None
        if self._whole_bytes is None:
            is_whole = received.endswith(_END_OF_CHUNKS)
        else:
            is_whole = len(received) >= self._whole_bytes
        if is_whole and self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def exchange(self, request: bytes) -> tuple[bytes, list[float]]:
        """The whole response, and when content arrived."""
        if self._transport is None or self._transport.is_closing():
            raise AnswerError("the connection was closed between two requests")
        self._received = bytearray()
        self._arrivals_s = []
        self._body_start = 0
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._done
        return bytes(self._received), self._arrivals_s

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.close()


def _request(address: str, path: str, fields: dict[str, object]) -> bytes:
    body = json.dumps(fields).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _RestClient:
    def __init__(self, connection: _HttpConnection, address: str, model: str) -> None:
        self._connection = connection
        self._address = address
        self._model = model
        self._requests: dict[int, bytes] = {}

    def _make(self, completion_tokens: int) -> bytes:
        fields: dict[str, object] = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt.TEXT}],
            "max_tokens": completion_tokens,
        }
        # One token needs no stream: that is the short request.
        if completion_tokens > 1:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return _request(self._address, "/v1/chat/completions", fields)

    async def ask(self, completion_tokens: int) -> Answer:
        """Asks once.

        Raises:
            AnswerError: the answer is not a 200, or is not whole.
        """
        request = self._requests.get(completion_tokens)
        if request is None:
            request = self._requests[completion_tokens] = self._make(completion_tokens)
        response, arrivals_s = await self._connection.exchange(request)
        if not response.startswith(b"HTTP/1.1 200"):
            raise AnswerError(response.decode("utf-8", "replace"))
        found = _COMPLETION_TOKENS.search(response, max(0, len(response) - _TAIL_BYTES))
        if found is None:
            raise AnswerError("the answer holds no usage")
        return Answer(arrivals_s, int(found[1]))


@asynccontextmanager
async def connect(address: str, model: str, clients: int) -> AsyncIterator[list[Ask]]:
    """Functions that ask what is at `address`, one for each client."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    connections = []
    try:
        for _ in range(clients):
            _transport, connection = await loop.create_connection(_HttpConnection, host, int(port))
            connections.append(connection)
        yield [_RestClient(connection, address, model).ask for connection in connections]
    finally:
        for connection in connections:
            connection.close()
