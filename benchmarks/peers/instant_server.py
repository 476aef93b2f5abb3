"""An OpenAI-compatible server that answers at once: python -m benchmarks.peers.instant_server PORT.

It stands behind a peer as the scripted engine stands behind our gateway, and costs next to nothing:
every answer was made before the first request.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_MAX_TOKENS = re.compile(rb'"max_tokens": ?(\d+)')
_STREAM = re.compile(rb'"stream": ?true')
_END_OF_HEAD = b"\r\n\r\n"


def _json(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def _usage(completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": 8,
        "completion_tokens": completion_tokens,
        "total_tokens": 8 + completion_tokens,
    }


def _body(completion_tokens: int) -> bytes:
    message = {"role": "assistant", "content": "word " * completion_tokens}
    body = _json(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "instant",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _usage(completion_tokens),
        }
    )
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def _stream(completion_tokens: int) -> bytes:
    def event(choices: list[dict[str, object]], **more: object) -> bytes:
        fields: dict[str, object] = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "instant",
            "choices": choices,
        }
        data = b"data: " + _json(fields | more) + b"\n\n"
        return b"%x\r\n%s\r\n" % (len(data), data)

    def word(number: int) -> bytes:
        # No two alike: a peer may take repetition for a fault of the model.
        return event([{"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": None}])

    last: dict[str, object] = {"index": 0, "delta": {}, "finish_reason": "stop"}
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    done = b"data: [DONE]\n\n"
    return b"".join(
        (
            head + b"\r\n",
            *map(word, range(completion_tokens)),
            event([last]),
            event([], usage=_usage(completion_tokens)),
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(done), done),
        )
    )


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = b""
        self._answers: dict[tuple[bool, int], bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answers each request that is whole."""
        self._received += data
        while (end := self._received.find(_END_OF_HEAD)) >= 0:
            length = _LENGTH.search(self._received[: end + len(_END_OF_HEAD)])
            whole = end + len(_END_OF_HEAD) + (int(length[1]) if length else 0)
            if len(self._received) < whole:
                return
            request, self._received = self._received[:whole], self._received[whole:]
            self._transport.write(self._answer(request))

    def _answer(self, request: bytes) -> bytes:
        asked = _MAX_TOKENS.search(request)
        completion_tokens = int(asked[1]) if asked else 1
        key = (bool(_STREAM.search(request)), completion_tokens)
        if key not in self._answers:
            make = _stream if key[0] else _body
            self._answers[key] = make(completion_tokens)
        return self._answers[key]


async def serve(port: int) -> None:
    """Serves on the loopback address until cancelled."""
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
