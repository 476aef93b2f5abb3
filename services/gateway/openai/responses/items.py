"""What a request's `input` holds: a string, or items, in the form in which they are given back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from services.gateway.openai.json_fields import (
    JsonObject,
    decode_base64,
    invalid_type,
    missing,
    not_one_of,
)
from services.gateway.openai.responses import ids
from services.mesh.errors import InvalidRequestError

Item: TypeAlias = dict[str, Any]
"""An item as the API gives it back: with an id, a type, and all fields of its type."""

MESSAGE = "message"
REASONING = "reasoning"
FUNCTION_CALL = "function_call"
FUNCTION_CALL_OUTPUT = "function_call_output"
ITEM_REFERENCE = "item_reference"
ITEM_TYPES = (MESSAGE, REASONING, FUNCTION_CALL, FUNCTION_CALL_OUTPUT, ITEM_REFERENCE)

ROLES = ("user", "assistant", "system", "developer")
_INPUT_PARTS = ("input_text", "input_image", "input_file", "input_audio")
_OUTPUT_PARTS = ("output_text", "refusal")
_STATUSES = ("in_progress", "completed", "incomplete")
_IMAGE_DETAILS = ("auto", "low", "high")
_AUDIO_FORMATS = ("wav", "mp3")


@dataclass(frozen=True)
class PlacedItem:
    """An item, and where it stands in the request: the path that errors name."""

    path: str
    item: Item
    is_string: bool = False
    """Whether the client sent a plain string, which has no content parts to name."""


def read_input(value: object) -> list[PlacedItem]:
    """The items of `input`, in order. References are not resolved yet.

    Raises:
        InvalidRequestError: an item is not as OpenAI's reference describes it, or of a type that
            nothing here makes.
    """
    if value is None:
        raise missing("input")
    if isinstance(value, str):
        part = {"type": "input_text", "text": value}
        return [PlacedItem("input", _message(None, "user", [part]), is_string=True)]
    if not isinstance(value, list):
        raise invalid_type("input", "a string or a list of items", value)
    items = [JsonObject(f"input[{index}]", item) for index, item in enumerate(value)]
    return [PlacedItem(item.path, _item(item)) for item in items]


def _item(item: JsonObject) -> Item:
    kind = item.string("type")
    if kind is None:
        kind = MESSAGE if item["role"] is not None else ITEM_REFERENCE
    if kind == MESSAGE:
        return _read_message(item)
    if kind == REASONING:
        return _read_reasoning(item)
    if kind == FUNCTION_CALL:
        return {
            "id": item.string("id") or ids.new_id(ids.FUNCTION_CALL),
            "type": FUNCTION_CALL,
            "status": item.one_of("status", _STATUSES) or "completed",
            "arguments": item.required_string("arguments"),
            "call_id": item.required_string("call_id"),
            "name": item.required_string("name"),
        }
    if kind == FUNCTION_CALL_OUTPUT:
        return {
            "id": item.string("id") or ids.new_id(ids.FUNCTION_CALL_OUTPUT),
            "type": FUNCTION_CALL_OUTPUT,
            "status": item.one_of("status", _STATUSES) or "completed",
            "call_id": item.required_string("call_id"),
            "output": _read_call_output(item),
        }
    if kind == ITEM_REFERENCE:
        return {"type": ITEM_REFERENCE, "id": item.required_string("id")}
    raise not_one_of(item.path_of("type"), ITEM_TYPES, kind)


def _read_message(message: JsonObject) -> Item:
    role = message.required_string("role")
    if role not in ROLES:
        raise not_one_of(message.path_of("role"), ROLES, role)
    content = message["content"]
    path = message.path_of("content")
    if content is None:
        raise missing(path)
    if isinstance(content, str):
        parts = [_output_text(content) if role == "assistant" else _input_text(content)]
    elif isinstance(content, list):
        parts = [
            _read_part(JsonObject(f"{path}[{index}]", part), role)
            for index, part in enumerate(content)
        ]
    else:
        raise invalid_type(path, "a string or a list of parts", content)
    if not parts:
        raise InvalidRequestError(
            f"Invalid '{path}': empty list. Expected at least one part.", field=path
        )
    message.one_of("status", _STATUSES)
    return _message(message.string("id"), role, parts)


def _message(item_id: str | None, role: str, parts: list[Item]) -> Item:
    return {
        "id": item_id or ids.new_id(ids.MESSAGE),
        "type": MESSAGE,
        "status": "completed",
        "content": parts,
        "role": role,
    }


def _input_text(text: str) -> Item:
    return {"type": "input_text", "text": text}


def _output_text(text: str) -> Item:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _read_part(part: JsonObject, role: str) -> Item:
    kind = part.required_string("type")
    allowed = _OUTPUT_PARTS if role == "assistant" else _INPUT_PARTS
    if kind not in allowed:
        raise not_one_of(part.path_of("type"), allowed, kind)
    if kind == "output_text":
        return _output_text(part.required_string("text"))
    if kind == "refusal":
        return {"type": "refusal", "refusal": part.required_string("refusal")}
    return _read_input_part(part, kind)


def _read_input_part(part: JsonObject, kind: str) -> Item:
    if kind == "input_text":
        return _input_text(part.required_string("text"))
    if kind == "input_audio":
        return _read_audio(part)
    # Neither files nor pictures are kept here, and nothing is fetched from elsewhere.
    if part["file_id"] is not None:
        raise InvalidRequestError(
            f"Unsupported parameter: '{part.path_of('file_id')}'. No files are kept here: send the "
            "content itself.",
            field=part.path_of("file_id"),
        )
    if kind == "input_image":
        return {
            "type": "input_image",
            "detail": part.one_of("detail", _IMAGE_DETAILS) or "auto",
            "file_id": None,
            "image_url": part.required_string("image_url"),
        }
    return _read_file(part)


def _read_audio(part: JsonObject) -> Item:
    audio = part.required_object("input_audio")
    form = audio.required_string("format")
    if form not in _AUDIO_FORMATS:
        raise not_one_of(audio.path_of("format"), _AUDIO_FORMATS, form)
    data = audio.required_string("data")
    decode_base64(audio.path_of("data"), data)
    return {"type": "input_audio", "input_audio": {"data": data, "format": form}}


def _read_file(part: JsonObject) -> Item:
    if part["file_url"] is not None:
        raise InvalidRequestError(
            f"Unsupported parameter: '{part.path_of('file_url')}'. Nothing is fetched from "
            "elsewhere: send 'file_data'.",
            field=part.path_of("file_url"),
        )
    data = part.required_string("file_data")
    decode_base64(part.path_of("file_data"), data.rpartition(",")[2])
    return {
        "type": "input_file",
        "file_data": data,
        "file_id": None,
        "filename": part.string("filename"),
    }


def _read_call_output(item: JsonObject) -> str | list[Item]:
    path = item.path_of("output")
    output = item["output"]
    if output is None:
        raise missing(path)
    if isinstance(output, str):
        return output
    if not isinstance(output, list):
        raise invalid_type(path, "a string or a list of parts", output)
    return [
        _read_part(JsonObject(f"{path}[{index}]", part), "user")
        for index, part in enumerate(output)
    ]


def _read_reasoning(item: JsonObject) -> Item:
    return {
        "id": item.string("id") or ids.new_id(ids.REASONING),
        "type": REASONING,
        "summary": _read_texts(item, "summary", "summary_text"),
        "content": _read_texts(item, "content", "reasoning_text"),
        "encrypted_content": item.string("encrypted_content"),
    }


def _read_texts(item: JsonObject, name: str, kind: str) -> list[Item]:
    texts = []
    for part in item.objects(name):
        found = part.required_string("type")
        if found != kind:
            raise not_one_of(part.path_of("type"), (kind,), found)
        texts.append({"type": kind, "text": part.required_string("text")})
    return texts
