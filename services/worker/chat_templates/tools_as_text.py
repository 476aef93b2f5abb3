"""Tools and results as plain text, for templates without a place for them.

Calls are told to be written as `services.worker.chat_formats.generic` reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from services.worker.chat_formats.written_calls import CALL_CLOSING, CALL_OPENING

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
    return _DESCRIPTION.format(tools=lines, opening=CALL_OPENING, closing=CALL_CLOSING)


def result(content: str) -> str:
    """What a call returned."""
    return f"<tool_response>\n{content}\n</tool_response>"
