"""Any streamed answer of the OpenAI API over HTTP/1.1: its server-sent events are counted."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.load import Answer, AnswerError, Ask
from benchmarks.runs import Connect
from benchmarks.targets.http import HttpConnection, connections, make_request

_EVENT = b"data: "
_TOKENS = re.compile(rb'"(?:completion|output)_tokens": ?(\d+)')


@dataclass(frozen=True)
class _Client:
    connection: HttpConnection
    request: bytes

    async def ask(self, _completion_tokens: int) -> Answer:
        """Asks once.

        Raises:
            AnswerError: the answer is not a 200, or holds no usage.
        """
        response, arrivals_s = await self.connection.exchange(self.request)
        if not response.startswith(b"HTTP/1.1 200"):
            raise AnswerError(response.decode("utf-8", "replace"))
        usages = _TOKENS.findall(response)
        if not usages:
            raise AnswerError(f"an answer without usage: {response[-300:]!r}")
        return Answer(arrivals_s, int(usages[-1]), response.count(_EVENT))


def connecting(path: str, fields: Mapping[str, object], *, api_key: str = "") -> Connect:
    """How to connect clients that POST `fields`, which say how many tokens the answer has."""

    @asynccontextmanager
    async def connect(address: str, model: str, clients: int) -> AsyncIterator[list[Ask]]:
        content = {"model": model, "stream": True, **fields}
        request = make_request(address, path, content, api_key=api_key)
        async with connections(address, clients, _EVENT) as opened:
            yield [_Client(each, request).ask for each in opened]

    return connect
