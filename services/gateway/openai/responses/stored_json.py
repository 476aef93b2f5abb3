"""Looks into, and changes, the JSON of a stored response."""

from __future__ import annotations

import json
from collections.abc import Iterable

from services.gateway.openai.json_text import encoded
from services.gateway.openai.responses.items import Item
from services.gateway.openai.responses.store.base import StoredResponse


def output_items(stored: StoredResponse) -> list[Item]:
    """The items of its output."""
    items: list[Item] = json.loads(stored.response)["output"]
    return items


def with_end(stored: StoredResponse, status: str, failure: str | None = None) -> str:
    """Its JSON, ended with a status and, where it failed, with what is told of that."""
    response: Item = json.loads(stored.response)
    response["status"] = status
    if failure is not None:
        response["error"] = {"code": "server_error", "message": failure}
    return encoded(response)


def ids_of(items: Iterable[Item]) -> list[str]:
    """The ids by which items can be referred to."""
    return [item["id"] for item in items]
