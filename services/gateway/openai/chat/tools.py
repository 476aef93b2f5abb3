"""OpenAI's tools and tool_choice as those of tokenmesh.mesh.v1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf import struct_pb2

from services.gateway.openai.constraints import schema_text
from services.gateway.openai.json_fields import (
    JsonObject,
    invalid_type,
    not_one_of,
    plain,
    plain_list,
)
from services.mesh.errors import InvalidRequestError
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


def read_tool_choice(value: struct_pb2.Value) -> ToolChoice:
    """Which tools must be called, or may be.

    Raises:
        InvalidRequestError: it is neither a mode nor an object as OpenAI's reference describes it.
    """
    choice = plain(value)
    if choice is None:
        return ToolChoice(None)
    if isinstance(choice, str):
        return ToolChoice(_mode("tool_choice", list(_MODES), choice))
    if not isinstance(choice, dict):
        raise invalid_type("tool_choice", "a string or an object", choice)
    asked = JsonObject("tool_choice", choice)
    kind = asked.required_string("type")
    if kind == "function":
        return ToolChoice(chat_pb2.ToolChoice(name=_function_name(asked)))
    if kind != "allowed_tools":
        raise not_one_of("tool_choice.type", ("function", "allowed_tools"), kind)
    allowed = asked.required_object("allowed_tools")
    mode = _mode(allowed.path_of("mode"), ("auto", "required"), allowed.required_string("mode"))
    names = {}
    for tool in allowed.objects("tools"):
        _check_type(tool)
        names[_function_name(tool)] = tool.path
    return ToolChoice(mode, names)


@dataclass(frozen=True)
class ToolChoice:
    """What a client says of the tools."""

    choice: chat_pb2.ToolChoice | None
    """None when it leaves it open."""
    allowed: Mapping[str, str] | None = None
    """Names of the tools that may be called, with their paths; None for all."""

    def among(self, tools: Sequence[chat_pb2.Tool]) -> Sequence[chat_pb2.Tool]:
        """The tools that the model is told of.

        Raises:
            InvalidRequestError: one that is allowed is not there.
        """
        if self.allowed is None:
            return tools
        known = {tool.name for tool in tools}
        for name, path in self.allowed.items():
            if name not in known:
                raise InvalidRequestError(
                    f"Invalid '{path}': '{name}' is none of the tools.", field=path
                )
        return [tool for tool in tools if tool.name in self.allowed]


def _mode(path: str, allowed: Sequence[str], mode: str) -> chat_pb2.ToolChoice:
    if mode not in allowed:
        raise not_one_of(path, allowed, mode)
    return chat_pb2.ToolChoice(mode=_MODES[mode])


def _function_name(value: JsonObject) -> str:
    return value.required_object("function").required_string("name")


def _check_type(value: JsonObject) -> None:
    kind = value.required_string("type")
    if kind != "function":
        raise not_one_of(value.path_of("type"), ("function",), kind)
