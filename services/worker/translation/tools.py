"""From the proto's tools to those that templates show, and to what an output may call."""

from __future__ import annotations

import json
from typing import Any

from services.mesh.errors import InvalidRequestError
from services.worker.chat_formats.base import Tool, ToolUse
from tokenmesh.mesh.v1 import chat_pb2


def rendered_tools(chat: chat_pb2.ChatPrompt) -> list[dict[str, Any]]:
    """The tools as chat templates take them: all, so that the choice among them does not change the
    prompt; none where none may be called.

    Raises:
        InvalidRequestError: the parameters of one are no JSON object.
    """
    if _excludes_calls(chat):
        return []
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": _parameters(tool, f"prompt.tools[{index}].parameters"),
            },
        }
        for index, tool in enumerate(chat.tools)
    ]


def tool_use(chat: chat_pb2.ChatPrompt) -> ToolUse:
    """What the output may call, or must.

    Raises:
        InvalidRequestError: the choice names no tool of the request, or demands one without any.
    """
    if _excludes_calls(chat):
        return ToolUse()
    choice = chat.tool_choice
    tools = [
        Tool(each.name, each.parameters, each.strict, f"prompt.tools[{index}].parameters")
        for index, each in enumerate(chat.tools)
    ]
    if choice.name:
        tools = [each for each in tools if each.name == choice.name]
        if not tools:
            raise InvalidRequestError(
                f"tool_choice names {choice.name!r}, which is none of the tools",
                field="prompt.tool_choice.name",
            )
    is_required = bool(choice.name) or choice.mode == chat_pb2.TOOL_CHOICE_MODE_REQUIRED
    if is_required and not tools:
        raise InvalidRequestError(
            "tool_choice demands a call, and there are no tools", field="prompt.tool_choice"
        )
    return ToolUse(
        tools=tuple(tools),
        is_required=is_required,
        is_parallel=chat.parallel_tool_calls or not chat.HasField("parallel_tool_calls"),
        is_named=bool(choice.name),
    )


def _excludes_calls(chat: chat_pb2.ChatPrompt) -> bool:
    choice = chat.tool_choice
    return not choice.name and choice.mode == chat_pb2.TOOL_CHOICE_MODE_NONE


def _parameters(tool: chat_pb2.Tool, field: str) -> dict[str, Any]:
    if not tool.parameters:
        return {}
    try:
        schema = json.loads(tool.parameters)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{field} is no JSON text: {error}", field=field) from None
    if not isinstance(schema, dict):
        raise InvalidRequestError(f"{field} must hold a JSON object", field=field)
    return schema
