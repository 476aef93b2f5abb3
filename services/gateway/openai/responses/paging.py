"""One page of a list of items."""

from __future__ import annotations

from collections.abc import Sequence

from services.gateway.openai.json_fields import not_one_of
from services.gateway.openai.json_text import encoded
from services.gateway.openai.responses.items import Item
from services.mesh.errors import InvalidRequestError

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
ORDERS = ("asc", "desc")


def page_json(
    items: Sequence[Item],
    *,
    after: str | None,
    before: str | None,
    limit: int | None,
    order: str | None,
) -> str:
    """The page, as OpenAI's list object. `items` are oldest first; "desc" is the default order.

    Raises:
        InvalidRequestError: the limit or the order cannot be, or there is no item to go on from.
    """
    count = DEFAULT_LIMIT if limit is None else limit
    if not 1 <= count <= MAX_LIMIT:
        raise InvalidRequestError(
            f"Invalid 'limit': expected a number from 1 to {MAX_LIMIT}, but got {count}.",
            field="limit",
        )
    if order is not None and order not in ORDERS:
        raise not_one_of("order", ORDERS, order)
    ordered = list(items) if order == "asc" else list(reversed(items))
    ids = [item["id"] for item in ordered]
    start = 0 if after is None else _place("after", after, ids) + 1
    end = len(ordered) if before is None else _place("before", before, ids)
    page = ordered[start:end][:count]
    return encoded(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": start + len(page) < end,
        }
    )


def _place(name: str, item_id: str, ids: Sequence[str]) -> int:
    try:
        return ids.index(item_id)
    except ValueError:
        raise InvalidRequestError(
            f"Invalid '{name}': the response has no item '{item_id}'.", field=name
        ) from None
