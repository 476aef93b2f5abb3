"""From the proto's prompts to the engine's."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2

from services.mesh.errors import InvalidRequestError
from services.worker.engines.base import ChatPrompt
from services.worker.translation.tools import rendered_tools
from tokenmesh.mesh.v1 import chat_pb2

ROLES: Mapping[int, str] = {
    chat_pb2.ROLE_SYSTEM: "system",
    chat_pb2.ROLE_DEVELOPER: "developer",
    chat_pb2.ROLE_USER: "user",
    chat_pb2.ROLE_ASSISTANT: "assistant",
    chat_pb2.ROLE_TOOL: "tool",
}
_DETAILS: Mapping[int, str] = {
    chat_pb2.IMAGE_DETAIL_LOW: "low",
    chat_pb2.IMAGE_DETAIL_HIGH: "high",
}
_REASONING_EFFORT_PREFIX = "REASONING_EFFORT_"


def chat_prompt(chat: chat_pb2.ChatPrompt, *, may_bring_template: bool) -> ChatPrompt:
    """The conversation as chat templates take it.

    Raises:
        InvalidRequestError: a part is missing or contradicts another; the error names it.
        UnsupportedError: it asks for what workers cannot do.
    """
    if not chat.messages:
        raise InvalidRequestError("prompt.messages is empty", field="prompt.messages")
    if chat.HasField("chat_template") and not may_bring_template:
        raise InvalidRequestError(
            "this worker does not let requests bring a chat template",
            field="prompt.chat_template",
        )
    if chat.continue_final_message and chat.add_generation_prompt:
        raise InvalidRequestError(
            "continue_final_message excludes add_generation_prompt",
            field="prompt.continue_final_message",
        )
    adds_generation_prompt = (
        chat.add_generation_prompt
        if chat.HasField("add_generation_prompt")
        else not chat.continue_final_message
    )
    return ChatPrompt(
        messages=[_message(each, index) for index, each in enumerate(chat.messages)],
        tools=rendered_tools(chat),
        add_generation_prompt=adds_generation_prompt,
        continue_final_message=chat.continue_final_message,
        chat_template=chat.chat_template if chat.HasField("chat_template") else None,
        template_arguments=_template_arguments(chat),
    )


def plain_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct as a dict; whole numbers become ints, as JSON would have them."""
    return {name: _plain_value(value) for name, value in struct.fields.items()}


def _plain_value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return plain_struct(value.struct_value)
    if kind == "list_value":
        return [_plain_value(each) for each in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "string_value":
        return value.string_value
    return value.bool_value if kind == "bool_value" else None


def _message(message: chat_pb2.Message, index: int) -> dict[str, Any]:
    role = ROLES.get(message.role)
    if role is None:
        raise InvalidRequestError(
            f"role is {message.role}; allowed are {', '.join(ROLES.values())}",
            field=f"prompt.messages[{index}].role",
        )
    translated: dict[str, Any] = {"role": role, "content": _content(message, index)}
    if message.HasField("name"):
        translated["name"] = message.name
    if message.HasField("reasoning"):
        translated["reasoning_content"] = message.reasoning
    if message.HasField("tool_call_id"):
        translated["tool_call_id"] = message.tool_call_id
    elif role == "tool":
        raise InvalidRequestError(
            "a tool message must name the call that it answers",
            field=f"prompt.messages[{index}].tool_call_id",
        )
    if message.tool_calls:
        translated["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return translated


def _content(message: chat_pb2.Message, index: int) -> str | list[dict[str, Any]]:
    """Texts become one string, which every chat template understands; else a list of parts."""
    if all(part.WhichOneof("part") == "text" for part in message.content):
        return "\n".join(part.text for part in message.content)
    return [
        _part(part, f"prompt.messages[{index}].content[{number}]")
        for number, part in enumerate(message.content)
    ]


def _part(part: chat_pb2.ContentPart, field: str) -> dict[str, Any]:
    kind = part.WhichOneof("part")
    if kind == "text":
        return {"type": "text", "text": part.text}
    if kind == "refusal":
        return {"type": "refusal", "refusal": part.refusal}
    if kind == "image":
        image = part.image
        url = image.url or _data_url(image.media_type, image.data)
        return {
            "type": "image_url",
            "image_url": {"url": url, "detail": _DETAILS.get(image.detail, "auto")},
        }
    if kind == "audio":
        sound = {
            "data": base64.b64encode(part.audio.data).decode(),
            "format": part.audio.media_type.removeprefix("audio/"),
        }
        return {"type": "input_audio", "input_audio": sound}
    if kind == "file":
        document = {
            "filename": part.file.name,
            "file_data": _data_url(part.file.media_type, part.file.data),
        }
        return {"type": "file", "file": document}
    raise InvalidRequestError(
        "a content part must be a text, a refusal, an image, audio or a file", field=field
    )


def _data_url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _template_arguments(chat: chat_pb2.ChatPrompt) -> dict[str, Any]:
    arguments = plain_struct(chat.chat_template_arguments)
    if chat.reasoning_effort:
        if chat.reasoning_effort not in chat_pb2.ReasoningEffort.values():
            raise InvalidRequestError(
                f"chat.reasoning_effort is {chat.reasoning_effort}, which is not known here",
                field="chat.reasoning_effort",
            )
        name = chat_pb2.ReasoningEffort.Name(chat.reasoning_effort)
        arguments["reasoning_effort"] = name.removeprefix(_REASONING_EFFORT_PREFIX).lower()
    return arguments
