"""`truncation: auto`: what a conversation leaves out where it does not fit the context."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from services.gateway.openai.responses.items import MESSAGE, PlacedItem

_INSTRUCTING = ("system", "developer")


async def drop_oldest(
    items: Sequence[PlacedItem], fits: Callable[[Sequence[PlacedItem]], Awaitable[bool]]
) -> Sequence[PlacedItem]:
    """The items, without as many of the oldest turns as it takes to fit.

    What is left begins with a message of the user, as chat templates want it, and no output is left
    without its call. Messages of the system and of developers stay. The last turn is never left
    out: a conversation whose last turn alone does not fit, does not.
    """
    if await fits(items):
        return items
    starts = [index for index, placed in enumerate(items) if _role(placed) == "user"][1:]
    if not starts:
        return items
    low, high = 0, len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        if await fits(_from(items, starts[middle])):
            high = middle
        else:
            low = middle + 1
    return _from(items, starts[low])


def _from(items: Sequence[PlacedItem], start: int) -> Sequence[PlacedItem]:
    kept = [placed for placed in items[:start] if _role(placed) in _INSTRUCTING]
    return [*kept, *items[start:]]


def _role(placed: PlacedItem) -> str | None:
    return placed.item["role"] if placed.item["type"] == MESSAGE else None
