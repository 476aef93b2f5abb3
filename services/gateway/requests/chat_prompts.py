"""What a conversation must look like, as tokenmesh/mesh/v1/chat.proto says it."""

from __future__ import annotations

import json
import re

from services.mesh.errors import InvalidRequestError
from tokenmesh.mesh.v1 import chat_pb2

MAX_MESSAGES = 10_000
MAX_TOOLS = 1_024
MAX_CHAT_TEMPLATE_CHARACTERS = 100_000

_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOOL_NAME_RULE = "must be 1 to 64 letters, digits, underscores or dashes"


def check(
    prompt: chat_pb2.ChatPrompt, field: str = "prompt", *, may_be_empty: bool = False
) -> None:
    """Checks all that can be known without the model. `field` is its path.

    Raises:
        InvalidRequestError: names the field below `field`, what was wrong, and what is allowed.
    """
    if not prompt.messages and not may_be_empty:
        raise _invalid(f"{field}.messages", "must hold at least one message")
    if len(prompt.messages) > MAX_MESSAGES:
        raise _invalid(
            f"{field}.messages", f"may hold {MAX_MESSAGES} at most, not {len(prompt.messages)}"
        )
    for index, message in enumerate(prompt.messages):
        check_message(message, f"{field}.messages[{index}]")
    _check_tools(prompt, field)
    if prompt.continue_final_message and prompt.add_generation_prompt:
        raise _invalid(
            f"{field}.continue_final_message", f"excludes {field}.add_generation_prompt: set one"
        )
    if len(prompt.chat_template) > MAX_CHAT_TEMPLATE_CHARACTERS:
        raise _invalid(
            f"{field}.chat_template", f"may have {MAX_CHAT_TEMPLATE_CHARACTERS} characters at most"
        )
    if prompt.reasoning_effort not in chat_pb2.ReasoningEffort.values():
        raise _unknown(f"{field}.reasoning_effort", prompt.reasoning_effort)


def check_message(message: chat_pb2.Message, field: str) -> None:
    """Checks one message of a conversation. `field` is its path.

    Raises:
        InvalidRequestError: as `check`.
    """
    role = message.role
    if role == chat_pb2.ROLE_UNSPECIFIED:
        raise _invalid(f"{field}.role", "must be set: system, developer, user, assistant or tool")
    if role not in chat_pb2.Role.values():
        raise _unknown(f"{field}.role", role)
    if not message.content and not (role == chat_pb2.ROLE_ASSISTANT and message.tool_calls):
        raise _invalid(
            f"{field}.content",
            "must not be empty, except in an assistant message that calls tools",
        )
    for index, part in enumerate(message.content):
        _check_part(part, role, f"{field}.content[{index}]")
    if message.tool_calls and role != chat_pb2.ROLE_ASSISTANT:
        raise _invalid(f"{field}.tool_calls", "may be in assistant messages only")
    for index, call in enumerate(message.tool_calls):
        if not call.name:
            raise _invalid(f"{field}.tool_calls[{index}].name", "must not be empty")
    if role == chat_pb2.ROLE_TOOL and not message.tool_call_id:
        raise _invalid(f"{field}.tool_call_id", "must name the call that the tool message answers")
    if role != chat_pb2.ROLE_TOOL and message.HasField("tool_call_id"):
        raise _invalid(f"{field}.tool_call_id", "may be in tool messages only")


def _check_part(part: chat_pb2.ContentPart, role: int, field: str) -> None:
    kind = part.WhichOneof("part")
    if kind is None:
        raise _invalid(field, "must hold a text, image, audio, file or refusal")
    if kind == "refusal" and role != chat_pb2.ROLE_ASSISTANT:
        raise _invalid(f"{field}.refusal", "may be in assistant messages only")
    if kind == "image":
        source = part.image.WhichOneof("source")
        if source is None:
            raise _invalid(f"{field}.image", "must hold a url or data")
        if source == "data" and not part.image.media_type:
            raise _invalid(f"{field}.image.media_type", 'must be set with data: "image/png"')


def _check_tools(prompt: chat_pb2.ChatPrompt, field: str) -> None:
    if len(prompt.tools) > MAX_TOOLS:
        raise _invalid(f"{field}.tools", f"may hold {MAX_TOOLS} at most, not {len(prompt.tools)}")
    names: set[str] = set()
    for index, tool in enumerate(prompt.tools):
        if not _TOOL_NAME.fullmatch(tool.name):
            raise _invalid(f"{field}.tools[{index}].name", f"{_TOOL_NAME_RULE}, not {tool.name!r}")
        if tool.name in names:
            raise _invalid(f"{field}.tools[{index}].name", f"{tool.name!r} is already taken")
        names.add(tool.name)
        _check_parameters(tool.parameters, f"{field}.tools[{index}].parameters")
    kind = prompt.tool_choice.WhichOneof("choice")
    if kind == "name" and prompt.tool_choice.name not in names:
        raise _invalid(
            f"{field}.tool_choice.name",
            f"{prompt.tool_choice.name!r} is none of {field}.tools",
        )
    if kind == "mode":
        mode = prompt.tool_choice.mode
        if mode not in chat_pb2.ToolChoiceMode.values():
            raise _unknown(f"{field}.tool_choice.mode", mode)
        if mode == chat_pb2.TOOL_CHOICE_MODE_REQUIRED and not prompt.tools:
            raise _invalid(f"{field}.tool_choice.mode", f"needs {field}.tools")


def _check_parameters(text: str, field: str) -> None:
    if not text:
        return
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(field, f"must hold a JSON text: {error}") from None
    if not isinstance(schema, dict):
        raise _invalid(field, "must hold a JSON object: the schema of the arguments")


def _invalid(field: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field} {what}", field=field)


def _unknown(field: str, number: int) -> InvalidRequestError:
    return _invalid(field, f"has the unknown value {number}")
