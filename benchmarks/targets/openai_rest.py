"""OpenAI's chat completions over HTTP/1.1, one kept connection for each client."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.load import Answer, AnswerError, Ask
from benchmarks.targets import prompt
from benchmarks.targets.http import HttpConnection, connections, make_request

_COMPLETION_TOKENS = re.compile(rb'"completion_tokens": ?(\d+)')
_CONTENT = b'"content":"'
# The usage stands at the end of a body.
_TAIL_BYTES = 1024


class _RestClient:
    def __init__(self, connection: HttpConnection, address: str, model: str) -> None:
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
        return make_request(self._address, "/v1/chat/completions", fields)

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
    async with connections(address, clients, _CONTENT) as opened:
        yield [_RestClient(connection, address, model).ask for connection in opened]
