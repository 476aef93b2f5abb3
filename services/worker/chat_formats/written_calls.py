"""Calls as texts."""

from __future__ import annotations

import json
from collections.abc import Sequence

CALL_OPENING = "<tool_call>"
CALL_CLOSING = "</tool_call>"


def json_call(name: str, arguments: str) -> str:
    """A call as a JSON object. `arguments` is a JSON text, or what a model wrote for one."""
    quoted = json.dumps(name, ensure_ascii=False)
    return f'{{"name": {quoted}, "arguments": {arguments or "{}"}}}'


def tagged_calls(calls: Sequence[tuple[str, str]]) -> str:
    """Calls below each other, each between tags, as Hermes writes them."""
    return "\n".join(f"{CALL_OPENING}\n{json_call(*call)}\n{CALL_CLOSING}" for call in calls)
