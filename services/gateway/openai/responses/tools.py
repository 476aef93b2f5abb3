"""The flat tools and tool_choice of /v1/responses as those of tokenmesh.mesh.v1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.gateway.openai.constraints import schema_text
from services.gateway.openai.json_fields import JsonObject, invalid_type, not_one_of
from services.gateway.openai.responses.items import Item
from services.mesh.errors import InvalidRequestError
from tokenmesh.mesh.v1 import chat_pb2

_MODES = {
    "auto": chat_pb2.TOOL_CHOICE_MODE_AUTO,
    "none": chat_pb2.TOOL_CHOICE_MODE_NONE,
    "required": chat_pb2.TOOL_CHOICE_MODE_REQUIRED,
}
_ALLOWED_MODES = ("auto", "required")
_CHOICE_TYPES = ("function", "allowed_tools")


def read_tools(values: Sequence[Any]) -> tuple[list[chat_pb2.Tool], list[Item]]:
    """The functions that the model may call, and how the response tells of them.

    Raises:
        InvalidRequestError: a tool is malformed, or one that OpenAI's servers run themselves.
    """
    tools, told = [], []
    for index, value in enumerate(values):
        tool = JsonObject(f"tools[{index}]", value)
        _check_type(tool)
        schema = tool.object("parameters")
        name = tool.required_string("name")
        description = tool.string("description")
        strict = tool.boolean("strict")
        tools.append(
            chat_pb2.Tool(
                name=name,
                description=description or "",
                parameters="" if schema is None else schema_text(schema.path, tool["parameters"]),
                strict=strict,
            )
        )
        told.append(
            {
                "type": "function",
                "description": description,
                "name": name,
                "parameters": tool["parameters"],
                "strict": bool(strict),
            }
        )
    return tools, told


def _check_type(tool: JsonObject) -> None:
    kind = tool.required_string("type")
    if kind != "function":
        raise InvalidRequestError(
            f"Unsupported tool: '{kind}'. No tools are run here: the one supported value of "
            f"'{tool.path_of('type')}' is 'function', for tools that the client runs.",
            reason="INVALID_VALUE",
            field=tool.path_of("type"),
        )


def read_tool_choice(choice: object, tools: list[chat_pb2.Tool]) -> chat_pb2.ToolChoice | None:
    """Which tools must be called; None when the request leaves it open. Drops from `tools` what
    `allowed_tools` leaves out.

    Raises:
        InvalidRequestError: it is neither a mode, nor names a function, nor lists allowed ones.
    """
    if choice is None:
        return None
    if isinstance(choice, str):
        if choice not in _MODES:
            raise not_one_of("tool_choice", list(_MODES), choice)
        return chat_pb2.ToolChoice(mode=_MODES[choice])
    if not isinstance(choice, dict):
        raise invalid_type("tool_choice", "a string or an object", choice)
    named = JsonObject("tool_choice", choice)
    kind = named.required_string("type")
    if kind not in _CHOICE_TYPES:
        raise not_one_of("tool_choice.type", _CHOICE_TYPES, kind)
    if kind == "function":
        return chat_pb2.ToolChoice(name=named.required_string("name"))
    return _allowed(named, tools)


def _allowed(choice: JsonObject, tools: list[chat_pb2.Tool]) -> chat_pb2.ToolChoice:
    mode = choice.required_string("mode")
    if mode not in _ALLOWED_MODES:
        raise not_one_of("tool_choice.mode", _ALLOWED_MODES, mode)
    known = {tool.name for tool in tools}
    allowed = set()
    for each in choice.objects("tools"):
        _check_type(each)
        name = each.required_string("name")
        if name not in known:
            raise InvalidRequestError(
                f"Invalid '{each.path_of('name')}': '{name}' is none of 'tools'.",
                reason="INVALID_VALUE",
                field=each.path_of("name"),
            )
        allowed.add(name)
    tools[:] = [tool for tool in tools if tool.name in allowed]
    return chat_pb2.ToolChoice(mode=_MODES[mode])
