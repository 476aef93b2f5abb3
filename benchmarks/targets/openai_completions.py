"""OpenAI's completions over HTTP/1.1: another prompt each time, past ends of text, greedily."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.load import Answer, AnswerError, Ask
from benchmarks.runs import Connect
from benchmarks.targets.http import HttpConnection, connections, make_request

_TEXT = b'"text":'
# Says that as many tokens came as were asked for. FastChat's usage tells one too few.
_LENGTH_REACHED = re.compile(rb'"finish_reason": ?"length"')


@dataclass(frozen=True)
class _Client:
    connection: HttpConnection
    address: str
    model: str
    prompts: Iterator[str]
    stream: bool

    async def ask(self, completion_tokens: int) -> Answer:
        """Asks once.

        Raises:
            AnswerError: the answer is not a 200, or ended before its length was reached.
        """
        fields: dict[str, object] = {
            "model": self.model,
            "prompt": next(self.prompts),
            "max_tokens": completion_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": self.stream,
        }
        request = make_request(self.address, "/v1/completions", fields)
        response, arrivals_s = await self.connection.exchange(request)
        if not response.startswith(b"HTTP/1.1 200"):
            raise AnswerError(response.decode("utf-8", "replace"))
        if not _LENGTH_REACHED.search(response):
            raise AnswerError(f"an answer that ends early: {response[-300:]!r}")
        return Answer(arrivals_s, completion_tokens)


def connecting(prompts: Iterator[str], *, stream: bool = True) -> Connect:
    """How to connect clients that send these prompts."""

    @asynccontextmanager
    async def connect(address: str, model: str, clients: int) -> AsyncIterator[list[Ask]]:
        async with connections(address, clients, _TEXT) as opened:
            yield [_Client(each, address, model, prompts, stream).ask for each in opened]

    return connect
