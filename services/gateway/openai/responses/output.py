"""What a model puts out, as the items of a response that grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.gateway.openai.json_text import array
from services.gateway.openai.logprobs import token_logprobs
from services.gateway.openai.responses.output_items import (
    COMPLETED,
    FunctionCallItem,
    MessageItem,
    OutputItem,
    ReasoningItem,
)
from services.mesh.errors import InternalError
from tokenmesh.mesh.v1.chat_pb2 import ToolCallDelta
from tokenmesh.mesh.v1.generation_pb2 import TokenLogprob
from tokenmesh.worker.v1 import worker_pb2


class OutputListener(Protocol):
    """Is told of each change of an output, in order."""

    def opened(self, item: OutputItem) -> None:
        """A new item has begun; it is empty."""

    def grew(self, item: OutputItem, text: str, logprobs: Sequence[str]) -> None:
        """More of an item has come. `logprobs` are JSON objects, of a message only."""

    def closed(self, item: OutputItem) -> None:
        """Nothing more of the item comes."""


class NobodyListens:
    """For an output that is only looked at as a whole."""

    def opened(self, item: OutputItem) -> None:
        """Does nothing."""

    def grew(self, item: OutputItem, text: str, logprobs: Sequence[str]) -> None:
        """Does nothing."""

    def closed(self, item: OutputItem) -> None:
        """Does nothing."""


class Output:
    """The items of a response. One is open at a time: another kind of output closes it."""

    def __init__(self, listener: OutputListener, *, shows_summary: bool) -> None:
        self.items: list[OutputItem] = []
        self._listener = listener
        self._shows_summary = shows_summary
        self._open: OutputItem | None = None
        self._calls: dict[int, FunctionCallItem] = {}
        self._early_logprobs: list[TokenLogprob] = []
        """Of tokens whose text has not come yet."""

    def take(self, chunk: worker_pb2.Chunk) -> None:
        """Takes new output.

        A chunk may hold several kinds of it, as those that were merged for a slow client do. What
        goes on with the open item comes first; then thoughts, text and calls, as models write them.
        """
        is_text = not (chunk.reasoning or chunk.tool_calls or chunk.logprobs)
        if is_text and isinstance(self._open, MessageItem) and not self._early_logprobs:
            # Almost every token's way.
            if chunk.text:
                self._grow(chunk.text)
            return
        deltas = list(chunk.tool_calls)
        while deltas and self._open is not None and self._open is self._calls.get(deltas[0].index):
            self._call(deltas.pop(0))
        if isinstance(self._open, MessageItem):
            self._say(chunk)
            self._think(chunk.reasoning)
        else:
            self._think(chunk.reasoning)
            self._say(chunk)
        for delta in deltas:
            self._call(delta)

    def end(self, status: str) -> None:
        """Closes what is open, with `status`. A complete output that holds nothing is an empty
        message.
        """
        if not self.items and status == COMPLETED:
            self._begin(MessageItem(0))
        self._close(status)

    def json(self) -> str:
        """All items, as a JSON array."""
        return array(item.json() for item in self.items)

    def _think(self, text: str) -> None:
        if not text:
            return
        if not isinstance(self._open, ReasoningItem):
            self._begin(ReasoningItem(len(self.items), is_summary=self._shows_summary))
        self._grow(text)

    def _say(self, chunk: worker_pb2.Chunk) -> None:
        logprobs = self._logprobs_of(chunk) if chunk.logprobs or self._early_logprobs else []
        if not chunk.text and not (logprobs and isinstance(self._open, MessageItem)):
            return
        if not isinstance(self._open, MessageItem):
            self._begin(MessageItem(len(self.items)))
        self._grow(chunk.text, logprobs)

    def _logprobs_of(self, chunk: worker_pb2.Chunk) -> list[str]:
        """Those of the tokens that the text is made of."""
        tokens = [*self._early_logprobs, *chunk.logprobs[chunk.reasoning_tokens :]]
        self._early_logprobs = []
        if chunk.text:
            return token_logprobs(_up_to(chunk.text, tokens) if chunk.tool_calls else tokens)
        if isinstance(self._open, MessageItem) and not chunk.tool_calls:
            return token_logprobs(tokens)
        if not chunk.tool_calls and not chunk.reasoning:
            self._early_logprobs = tokens
        return []

    def _call(self, delta: ToolCallDelta) -> None:
        call = self._calls.get(delta.index)
        if call is None:
            call = FunctionCallItem(len(self.items), delta)
            self._begin(call)
            self._calls[delta.index] = call
        elif call is not self._open:
            raise InternalError("a worker went on with a tool call that it had ended")
        if delta.arguments:
            self._grow(delta.arguments)

    def _begin(self, item: OutputItem) -> None:
        self._close(COMPLETED)
        self.items.append(item)
        self._open = item
        self._listener.opened(item)

    def _grow(self, text: str, logprobs: Sequence[str] = ()) -> None:
        item = self._open
        assert item is not None
        item.add(text)
        if isinstance(item, MessageItem):
            item.logprobs += logprobs
        self._listener.grew(item, text, logprobs)

    def _close(self, status: str) -> None:
        if self._open is not None:
            self._open.status = status
            self._listener.closed(self._open)
            self._open = None


def _up_to(text: str, tokens: Sequence[TokenLogprob]) -> Sequence[TokenLogprob]:
    """The first of the tokens, as many as the text has bytes for."""
    left = len(text.encode())
    for number, token in enumerate(tokens):
        if left <= 0:
            return tokens[:number]
        left -= len(token.bytes)
    return tokens
