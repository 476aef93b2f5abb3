"""Items as the messages of a conversation, and back from a message to the item that errors name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.gateway.openai.json_fields import decode_base64
from services.gateway.openai.responses.items import (
    FUNCTION_CALL,
    FUNCTION_CALL_OUTPUT,
    MESSAGE,
    REASONING,
    Item,
    PlacedItem,
)
from services.mesh.errors import InvalidRequestError
from tokenmesh.mesh.v1 import chat_pb2

_ROLES = {
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_DEVELOPER,
}
_IMAGE_DETAILS = {
    "auto": chat_pb2.IMAGE_DETAIL_AUTO,
    "low": chat_pb2.IMAGE_DETAIL_LOW,
    "high": chat_pb2.IMAGE_DETAIL_HIGH,
}
_AUDIO_MEDIA_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}

# Of a path into the typed request, such as "prompt.messages[3].content[0].image".
_MESSAGE = re.compile(r"\bprompt\.messages\[(\d+)\](?:\.(content|tool_calls)(?:\[(\d+)\])?)?")


@dataclass
class _Place:
    """Where the parts of a message come from."""

    path: str
    has_parts: bool = True
    calls: list[str] = field(default_factory=list)


class Conversation:
    """Messages in order. What an assistant thought, said and called in a row is one message.

    Instructions come first. They are those of this request alone, whatever it continues.
    """

    def __init__(self, instructions: str | None, items: Iterable[PlacedItem]) -> None:
        """Raises:
        InvalidRequestError: an output answers a call that was never made.
        """
        self.messages: list[chat_pb2.Message] = []
        self._places: list[_Place] = []
        self._thought = ""
        self._call_ids: set[str] = set()
        if instructions:
            self._add(
                chat_pb2.ROLE_SYSTEM,
                [chat_pb2.ContentPart(text=instructions)],
                _Place("instructions", has_parts=False),
            )
        for placed in items:
            self._take(placed)

    def spelled(self, words: str) -> str:
        """Words about messages of the typed request, in terms of the items that they come from."""
        return _MESSAGE.sub(self._item_path, words)

    def _item_path(self, match: re.Match[str]) -> str:
        number, part, index = int(match[1]), match[2], match[3]
        if number >= len(self._places):
            return match[0]
        place = self._places[number]
        if part == "tool_calls" and index is not None and int(index) < len(place.calls):
            return place.calls[int(index)]
        if part is None or not place.has_parts:
            return place.path
        return f"{place.path}.{part}" + (f"[{index}]" if index is not None else "")

    def _take(self, placed: PlacedItem) -> None:
        item = placed.item
        kind = item["type"]
        if kind == REASONING:
            parts = item["content"] or item["summary"]
            self._thought += "".join(part["text"] for part in parts)
        elif kind == FUNCTION_CALL:
            self._call(placed)
        elif kind == FUNCTION_CALL_OUTPUT:
            self._answer(placed)
        elif kind == MESSAGE:
            self._say(placed)

    def _say(self, placed: PlacedItem) -> None:
        item = placed.item
        role = _ROLES[item["role"]]
        parts = [_part(part) for part in item["content"]]
        place = _Place(placed.path, has_parts=not placed.is_string)
        if role == chat_pb2.ROLE_ASSISTANT:
            self._add(role, parts, place, thought=self._thought)
        else:
            self._add(role, parts, place)
        self._thought = ""

    def _call(self, placed: PlacedItem) -> None:
        item = placed.item
        goes_on = (
            bool(self.messages)
            and self.messages[-1].role == chat_pb2.ROLE_ASSISTANT
            and not self._thought
        )
        if not goes_on:
            self._add(chat_pb2.ROLE_ASSISTANT, [], _Place(placed.path), thought=self._thought)
            self._thought = ""
        self.messages[-1].tool_calls.add(
            id=item["call_id"], name=item["name"], arguments=item["arguments"]
        )
        self._places[-1].calls.append(placed.path)
        self._call_ids.add(item["call_id"])

    def _answer(self, placed: PlacedItem) -> None:
        item = placed.item
        call_id = item["call_id"]
        if call_id not in self._call_ids:
            raise InvalidRequestError(
                f"No tool call found for function call output with call_id {call_id}.",
                field=f"{placed.path}.call_id",
            )
        output = item["output"]
        if isinstance(output, str):
            parts = [chat_pb2.ContentPart(text=output)]
        else:
            parts = [_part(part) for part in output]
        place = _Place(placed.path, has_parts=False)
        self._add(chat_pb2.ROLE_TOOL, parts, place, call_id=call_id)
        self._thought = ""

    def _add(
        self,
        role: chat_pb2.Role.ValueType,
        parts: list[chat_pb2.ContentPart],
        place: _Place,
        *,
        thought: str = "",
        call_id: str | None = None,
    ) -> None:
        self.messages.append(
            chat_pb2.Message(
                role=role, content=parts, reasoning=thought or None, tool_call_id=call_id
            )
        )
        self._places.append(place)


def _part(part: Item) -> chat_pb2.ContentPart:
    kind = part["type"]
    if kind == "refusal":
        return chat_pb2.ContentPart(refusal=part["refusal"])
    if kind == "input_image":
        detail = _IMAGE_DETAILS[part["detail"]]
        return chat_pb2.ContentPart(image=chat_pb2.Image(url=part["image_url"], detail=detail))
    if kind == "input_audio":
        audio = part["input_audio"]
        data = decode_base64("data", audio["data"])
        media_type = _AUDIO_MEDIA_TYPES[audio["format"]]
        return chat_pb2.ContentPart(audio=chat_pb2.Audio(media_type=media_type, data=data))
    if kind == "input_file":
        head, _, encoded = part["file_data"].rpartition(",")
        return chat_pb2.ContentPart(
            file=chat_pb2.File(
                name=part["filename"] or "",
                media_type=head.removeprefix("data:").partition(";")[0],
                data=decode_base64("file_data", encoded),
            )
        )
    return chat_pb2.ContentPart(text=part["text"])
