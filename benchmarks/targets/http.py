"""Just enough HTTP/1.1 to cost little: the load generator shares the machine with what it loads."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

from benchmarks.load import AnswerError

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"
_END_OF_CHUNKS = b"\r\n0\r\n\r\n"


class HttpConnection(asyncio.Protocol):
    """One connection, with at most one request under way.

    Args:
        content: what a piece of a response holds where it holds output.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
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
        if self._content in data:
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


def make_request(address: str, path: str, fields: dict[str, object], *, api_key: str = "") -> bytes:
    """A POST of JSON, as bytes."""
    body = json.dumps(fields).encode()
    authorization = f"authorization: Bearer {api_key}\r\n" if api_key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n"
        f"{authorization}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@asynccontextmanager
async def connections(
    address: str, count: int, content: bytes
) -> AsyncIterator[list[HttpConnection]]:
    """So many connections to what is at `address`."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    opened: list[HttpConnection] = []
    try:
        for _ in range(count):
            make = partial(HttpConnection, content)
            _transport, connection = await loop.create_connection(make, host, int(port))
            opened.append(connection)
        yield opened
    finally:
        for connection in opened:
            connection.close()
