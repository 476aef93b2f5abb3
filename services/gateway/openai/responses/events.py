"""A streamed response, as the server-sent events that OpenAI documents."""

from __future__ import annotations

from collections.abc import Sequence

from services.gateway.openai.json_text import array, quoted
from services.gateway.openai.responses.output_items import (
    FunctionCallItem,
    MessageItem,
    OutputItem,
    ReasoningItem,
)

CANCELLED = "cancelled"
CANCELLED_CODE = "response_cancelled"
CANCELLED_WORDS = "The response was cancelled."

_LAST = (
    b"event: response.completed\n",
    b"event: response.incomplete\n",
    b"event: response.failed\n",
    b"event: error\n",
)


def is_last(event: bytes) -> bool:
    """Whether no event follows this one."""
    return event.startswith(_LAST)


class EventPrinter:
    """Prints what happens to a response. Events are numbered, from `first` on.

    Only the text of a token is encoded when it comes.
    """

    def __init__(self, first: int = 0) -> None:
        self._number = first
        self._printed: list[str] = []
        self._delta: tuple[str, str, str] = ("", "", "")
        """Kind, opening and closing of the open item's deltas."""

    def take(self) -> list[bytes]:
        """The events since the last time, each as it is sent."""
        printed = [event.encode() for event in self._printed]
        self._printed.clear()
        return printed

    def response(self, kind: str, response: str) -> None:
        """An event about the whole response: `response` is its JSON."""
        self._print(f"response.{kind}", f'"response":{response}')

    def end(self, status: str, response: str) -> None:
        """The last event: the response has ended with a status. No event of OpenAI's own tells that
        one was cancelled.
        """
        if status == CANCELLED:
            told = f'"code":"{CANCELLED_CODE}","message":"{CANCELLED_WORDS}","param":null'
            self._print("error", told)
        else:
            self.response(status, response)

    def opened(self, item: OutputItem) -> None:
        """An item has begun."""
        self._print(
            "response.output_item.added", f'"output_index":{item.index},"item":{item.json()}'
        )
        place = f'"item_id":"{item.item_id}","output_index":{item.index}'
        if isinstance(item, FunctionCallItem):
            self._delta = ("response.function_call_arguments.delta", f"{place},", "")
        elif isinstance(item, ReasoningItem) and item.is_summary:
            place += ',"summary_index":0'
            self._print("response.reasoning_summary_part.added", f'{place},"part":{item.part()}')
            self._delta = ("response.reasoning_summary_text.delta", f"{place},", "")
        elif isinstance(item, ReasoningItem):
            place += ',"content_index":0'
            self._print("response.content_part.added", f'{place},"part":{item.part()}')
            self._delta = ("response.reasoning_text.delta", f"{place},", "")
        elif isinstance(item, MessageItem):
            place += ',"content_index":0'
            self._print("response.content_part.added", f'{place},"part":{item.part()}')
            self._delta = ("response.output_text.delta", f"{place},", ',"logprobs":[]')

    def grew(self, item: OutputItem, text: str, logprobs: Sequence[str]) -> None:
        """More of the open item has come."""
        kind, opening, closing = self._delta
        if logprobs:
            closing = f',"logprobs":{array(logprobs)}'
        self._print(kind, f'{opening}"delta":{quoted(text)}{closing}')

    def closed(self, item: OutputItem) -> None:
        """The open item has ended."""
        place = f'"item_id":"{item.item_id}","output_index":{item.index}'
        if isinstance(item, FunctionCallItem):
            self._print(
                "response.function_call_arguments.done",
                f'{place},"name":{quoted(item.name)},"arguments":{quoted(item.text)}',
            )
        elif isinstance(item, ReasoningItem) and item.is_summary:
            place += ',"summary_index":0'
            self._print(
                "response.reasoning_summary_text.done", f'{place},"text":{quoted(item.text)}'
            )
            self._print("response.reasoning_summary_part.done", f'{place},"part":{item.part()}')
        elif isinstance(item, ReasoningItem):
            place += ',"content_index":0'
            self._print("response.reasoning_text.done", f'{place},"text":{quoted(item.text)}')
            self._print("response.content_part.done", f'{place},"part":{item.part()}')
        elif isinstance(item, MessageItem):
            place += ',"content_index":0'
            self._print(
                "response.output_text.done",
                f'{place},"text":{quoted(item.text)},"logprobs":{array(item.logprobs)}',
            )
            self._print("response.content_part.done", f'{place},"part":{item.part()}')
        self._print(
            "response.output_item.done", f'"output_index":{item.index},"item":{item.json()}'
        )

    def _print(self, kind: str, fields: str) -> None:
        number = self._number
        self._printed.append(
            f'event: {kind}\ndata: {{"type":"{kind}","sequence_number":{number},{fields}}}\n\n'
        )
        self._number += 1
