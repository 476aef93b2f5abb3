"""Tools, calls and results as plain text, for templates without a place for them.

The way of writing is that of `services.worker.chat_formats.hermes`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from services.worker.chat_formats.hermes import CLOSING, OPENING

_DESCRIPTION = """\
# Tools

You can call functions to help with the user's request. These are the functions, as JSON:
<tools>
{tools}
</tools>

To call a function, write its name and its arguments as a JSON object between these tags:
{opening}
{{"name": "<the function's name>", "arguments": {{<its arguments>}}}}
{closing}
You can write several calls, one after the other. Their results follow in the next message. If no
function helps, answer without one."""


def described(tools: Sequence[Mapping[str, Any]]) -> str:
    """Instructions that tell a model of tools, and how to call them."""
    lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    return _DESCRIPTION.format(tools=lines, opening=OPENING, closing=CLOSING)


def with_calls(content: str, calls: Sequence[Mapping[str, Any]]) -> str:
    """What an assistant said, and the calls that it made."""
    return "\n".join([*([content] if content else []), *(_call(each) for each in calls)])


def result(content: str) -> str:
    """What a call returned."""
    return f"<tool_response>\n{content}\n</tool_response>"


def _call(call: Mapping[str, Any]) -> str:
    function = call["function"]
    arguments = function["arguments"]
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    name = json.dumps(function["name"], ensure_ascii=False)
    return f'{OPENING}\n{{"name": {name}, "arguments": {arguments or "{}"}}}\n{CLOSING}'
