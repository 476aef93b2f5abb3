"""One request over HTTP: every byte that comes back, and when it came.

Speaks just enough HTTP to cost little: a hundred clients share the machine with the mesh.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos.questions import Question

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


@dataclass
class Exchange:
    """A request, and what came of it. Times are in seconds of the monotonic clock."""

    question: Question
    request_id: str
    began_s: float
    ended_s: float = 0.0
    status: int = 0
    body: bytes = b""
    is_whole: bool = False
    failure: str = ""
    """What ended it, where that was not the end of the response."""
    arrivals_s: list[float] = field(default_factory=list)

    def longest_silence_s(self, begin_s: float, end_s: float) -> float:
        """The longest time without a byte that touches the span."""
        pairs = pairwise(self.arrivals_s)
        return max(
            (after - before for before, after in pairs if after >= begin_s and before <= end_s),
            default=0.0,
        )


async def ask(
    host: str, port: int, question: Question, request_id: str, limit_s: float
) -> Exchange:
    """Sends the request and reads to the end, however it ends. Never raises for what the mesh does.

    An answer that has not ended after `limit_s` seconds is given up.
    """
    exchange = Exchange(question, request_id, time.monotonic())
    received = bytearray()
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(question.to_bytes(f"{host}:{port}", request_id))
                while data := await reader.read(65536):
                    received += data
                    exchange.arrivals_s.append(time.monotonic())
            finally:
                writer.close()
    except TimeoutError:
        exchange.failure = f"not over after {limit_s:g} s"
    except OSError as error:
        exchange.failure = f"the connection broke: {error}"
    exchange.ended_s = time.monotonic()
    _read_response(exchange, bytes(received))
    return exchange


def _read_response(exchange: Exchange, received: bytes) -> None:
    head, found, body = received.partition(_END_OF_HEAD)
    if not found:
        exchange.failure = exchange.failure or "the connection ended without a response"
        return
    exchange.status = int(head.split(b" ", 2)[1])
    length = _LENGTH.search(head)
    if length is not None:
        exchange.body, exchange.is_whole = body, len(body) == int(length[1])
    elif _CHUNKED.search(head):
        exchange.body, exchange.is_whole = _dechunk(body)
    if not exchange.is_whole:
        exchange.failure = exchange.failure or "the connection ended amid the response"


def _dechunk(body: bytes) -> tuple[bytes, bool]:
    """The content of a chunked body, and whether its end is there."""
    content = bytearray()
    at = 0
    while (end := body.find(b"\r\n", at)) >= 0:
        size = int(body[at:end], 16)
        if size == 0:
            return bytes(content), True
        content += body[end + 2 : end + 2 + size]
        at = end + 2 + size + 2
    return bytes(content), False
