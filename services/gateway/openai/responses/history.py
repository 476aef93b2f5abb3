"""What a response answers: what it continues, then its own input, each item in full."""

from __future__ import annotations

from dataclasses import replace

from services.gateway.openai.responses.items import ITEM_REFERENCE, Item, PlacedItem
from services.gateway.openai.responses.request import ResponseRequest
from services.gateway.openai.responses.store.base import ResponseStore, StoredResponse
from services.gateway.openai.responses.stored_json import output_items
from services.mesh.errors import InvalidRequestError, NotFoundError

PREVIOUS = "previous_response_id"


async def past_items(store: ResponseStore, previous_id: str, owner: str) -> list[Item]:
    """All inputs and outputs up to a response, oldest first.

    Raises:
        InvalidRequestError: the owner has no such response, or it is still being made.
        StoreError: the store does not work.
    """
    chain = await store.chain(previous_id, owner)
    if not chain:
        raise InvalidRequestError(
            f"Previous response with id '{previous_id}' not found.",
            reason="PREVIOUS_RESPONSE_NOT_FOUND",
            field=PREVIOUS,
        )
    if chain[-1].is_running:
        raise InvalidRequestError(
            f"Previous response with id '{previous_id}' is not complete yet: its status is "
            f"'{chain[-1].status}'.",
            field=PREVIOUS,
        )
    return items_of(chain)


def items_of(chain: list[StoredResponse]) -> list[Item]:
    """The items of responses that continue each other."""
    return [item for stored in chain for item in (*stored.input_items, *output_items(stored))]


async def own_items(
    store: ResponseStore, asked: ResponseRequest, past: list[Item], owner: str
) -> list[PlacedItem]:
    """The items of the request's own input, with references resolved.

    Raises:
        NotFoundError: a reference leads to nothing that the owner has.
        InvalidRequestError: an item is in what the response continues already.
        StoreError: the store does not work.
    """
    past_ids = {item["id"] for item in past}
    for placed in asked.items:
        if placed.item["id"] in past_ids:
            raise InvalidRequestError(
                f"Duplicate item found with id {placed.item['id']}: the previous response brings "
                "it already. Remove duplicate items from your input and try again.",
                field=f"{placed.path}.id",
            )
    referred = [each.item["id"] for each in asked.items if each.item["type"] == ITEM_REFERENCE]
    if not referred:
        return asked.items
    found = await store.find_items(referred, owner)
    resolved = []
    for placed in asked.items:
        if placed.item["type"] != ITEM_REFERENCE:
            resolved.append(placed)
            continue
        item = found.get(placed.item["id"])
        if item is None:
            raise NotFoundError(
                f"Item with id '{placed.item['id']}' not found. Items are found once the response "
                "that holds them is stored.",
                field=f"{placed.path}.id",
            )
        resolved.append(replace(placed, item=item))
    return resolved
