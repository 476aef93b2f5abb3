"""OpenAI's messages as those of tokenmesh.mesh.v1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import struct_pb2

from services.gateway.openai.json_fields import (
    JsonObject,
    decode_base64,
    invalid_type,
    missing,
    not_offered,
    not_one_of,
    plain_list,
)
from services.mesh.errors import InvalidRequestError
from tokenmesh.mesh.v1 import chat_pb2

_ROLES = {
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_DEVELOPER,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
}
_IMAGE_DETAILS = {
    "auto": chat_pb2.IMAGE_DETAIL_AUTO,
    "low": chat_pb2.IMAGE_DETAIL_LOW,
    "high": chat_pb2.IMAGE_DETAIL_HIGH,
    "original": chat_pb2.IMAGE_DETAIL_HIGH,
}
_AUDIO_MEDIA_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}
# Deprecated by OpenAI in favour of tool_calls; an answer that was spoken.
_UNOFFERED = ("function_call", "audio")
_PART_TYPES = ("text", "image_url", "input_audio", "file", "refusal")


def read_messages(values: Sequence[struct_pb2.Value]) -> list[chat_pb2.Message]:
    """The messages of a request.

    Raises:
        InvalidRequestError: a message is not as OpenAI's reference describes it.
    """
    return [
        _message(JsonObject(f"messages[{index}]", value))
        for index, value in enumerate(plain_list(values))
    ]


def last_words(prompt: chat_pb2.ChatPrompt) -> str:
    """The text of the last message, where that is the assistant's: what an answer goes on from."""
    last = prompt.messages[-1]
    if last.role != chat_pb2.ROLE_ASSISTANT:
        return ""
    return "\n".join(part.text for part in last.content)


def _message(message: JsonObject) -> chat_pb2.Message:
    role = message.required_string("role")
    if role not in _ROLES:
        raise not_one_of(message.path_of("role"), list(_ROLES), role)
    for name in _UNOFFERED:
        if message[name] is not None:
            raise not_offered(message.path_of(name))
    parts = _content(message)
    refusal = message.string("refusal")
    if refusal is not None:
        parts.append(chat_pb2.ContentPart(refusal=refusal))
    calls = [_tool_call(call) for call in message.objects("tool_calls")]
    if not parts and not (role == "assistant" and calls):
        if message["content"] is None:
            raise missing(message.path_of("content"))
        raise InvalidRequestError(
            f"Invalid '{message.path_of('content')}': empty list. Expected at least one part.",
            field=message.path_of("content"),
        )
    return chat_pb2.Message(
        role=_ROLES[role],
        name=message.string("name"),
        content=parts,
        tool_calls=calls,
        tool_call_id=message.string("tool_call_id"),
        reasoning=message.string("reasoning_content") or message.string("reasoning"),
    )


def _content(message: JsonObject) -> list[chat_pb2.ContentPart]:
    content: Any = message["content"]
    if content is None:
        return []
    if isinstance(content, str):
        return [chat_pb2.ContentPart(text=content)]
    if isinstance(content, list):
        path = message.path_of("content")
        return [_part(JsonObject(f"{path}[{index}]", part)) for index, part in enumerate(content)]
    raise invalid_type(message.path_of("content"), "a string or a list of parts", content)


def _part(part: JsonObject) -> chat_pb2.ContentPart:
    kind = part.required_string("type")
    if kind == "text":
        return chat_pb2.ContentPart(text=part.required_string("text"))
    if kind == "refusal":
        return chat_pb2.ContentPart(refusal=part.required_string("refusal"))
    if kind == "image_url":
        return chat_pb2.ContentPart(image=_image(part.required_object("image_url")))
    if kind == "input_audio":
        return chat_pb2.ContentPart(audio=_audio(part.required_object("input_audio")))
    if kind == "file":
        return chat_pb2.ContentPart(file=_file(part.required_object("file")))
    raise not_one_of(part.path_of("type"), _PART_TYPES, kind)


def _image(image: JsonObject) -> chat_pb2.Image:
    detail = image.one_of("detail", list(_IMAGE_DETAILS)) or "auto"
    return chat_pb2.Image(url=image.required_string("url"), detail=_IMAGE_DETAILS[detail])


def _audio(audio: JsonObject) -> chat_pb2.Audio:
    form = audio.required_string("format")
    if form not in _AUDIO_MEDIA_TYPES:
        raise not_one_of(audio.path_of("format"), list(_AUDIO_MEDIA_TYPES), form)
    data = decode_base64(audio.path_of("data"), audio.required_string("data"))
    return chat_pb2.Audio(media_type=_AUDIO_MEDIA_TYPES[form], data=data)


def _file(file: JsonObject) -> chat_pb2.File:
    if file["file_id"] is not None and file["file_data"] is None:
        raise not_offered(file.path_of("file_id"))
    path = file.path_of("file_data")
    head, _, encoded = file.required_string("file_data").rpartition(",")
    media_type = head.removeprefix("data:").partition(";")[0]
    return chat_pb2.File(
        name=file.string("filename") or "",
        media_type=media_type,
        data=decode_base64(path, encoded),
    )


def _tool_call(call: JsonObject) -> chat_pb2.ToolCall:
    kind = call.string("type")
    if kind not in (None, "function"):
        raise not_one_of(call.path_of("type"), ("function",), str(kind))
    function = call.required_object("function")
    return chat_pb2.ToolCall(
        id=call.required_string("id"),
        name=function.required_string("name"),
        arguments=function.string("arguments") or "",
    )
