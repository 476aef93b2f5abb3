"""OpenAI's tools and tool_choice as those of tokenmesh.mesh.v1."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import struct_pb2

from services.gateway.openai.constraints import schema_text
from services.gateway.openai.json_fields import (
    JsonObject,
    invalid_type,
    not_one_of,
    plain,
    plain_list,
)
from tokenmesh.mesh.v1 import chat_pb2

_MODES = {
    "auto": chat_pb2.TOOL_CHOICE_MODE_AUTO,
    "none": chat_pb2.TOOL_CHOICE_MODE_NONE,
    "required": chat_pb2.TOOL_CHOICE_MODE_REQUIRED,
}


def read_tools(values: Sequence[struct_pb2.Value]) -> list[chat_pb2.Tool]:
    """The functions that the model may call.

    Raises:
        InvalidRequestError: a tool is not as OpenAI's reference describes it.
    """
    return [
        _tool(JsonObject(f"tools[{index}]", value))
        for index, value in enumerate(plain_list(values))
    ]


def _tool(tool: JsonObject) -> chat_pb2.Tool:
    _check_type(tool)
    function = tool.required_object("function")
    return chat_pb2.Tool(
        name=function.required_string("name"),
        description=function.string("description") or "",
        parameters=_parameters(function),
        strict=function.boolean("strict"),
    )


def _parameters(function: JsonObject) -> str:
    schema = function.object("parameters")
    return "" if schema is None else schema_text(schema.path, function["parameters"])


def read_tool_choice(value: struct_pb2.Value) -> chat_pb2.ToolChoice | None:
    """Which tools must be called; None when the request leaves it open.

    Raises:
        InvalidRequestError: it is neither a mode nor an object that names a function.
    """
    choice = plain(value)
    if choice is None:
        return None
    if isinstance(choice, str):
        if choice not in _MODES:
            raise not_one_of("tool_choice", list(_MODES), choice)
        return chat_pb2.ToolChoice(mode=_MODES[choice])
    if not isinstance(choice, dict):
        raise invalid_type("tool_choice", "a string or an object", choice)
    named = JsonObject("tool_choice", choice)
    _check_type(named)
    return chat_pb2.ToolChoice(name=named.required_object("function").required_string("name"))


def _check_type(value: JsonObject) -> None:
    kind = value.required_string("type")
    if kind != "function":
        raise not_one_of(value.path_of("type"), ("function",), kind)
