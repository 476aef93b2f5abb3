"""Responses as they are kept and found again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from services.gateway.openai.responses.items import Item
from services.gateway.openai.responses.making import FAILED, ResponseInMaking
from services.gateway.openai.responses.metrics import ResponseMetrics
from services.gateway.openai.responses.store.base import ResponseStore, StoredResponse
from services.gateway.openai.responses.stored_json import ids_of, with_end
from services.mesh.errors import NotFoundError, StoreError

DEAD_AFTER_S = 15.0
"""Silence after which whoever makes a response is taken for dead. Many times as long as it may take
to say that it lives: a response that was given up is not taken up again."""

DIED = "The gateway that made the response has ended."


class ResponseArchive:
    """What the store holds, by whose it is.

    Args:
        clock_s: seconds since the epoch.
    """

    def __init__(
        self,
        store: ResponseStore,
        metrics: ResponseMetrics,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self._metrics = metrics
        self._clock_s = clock_s

    async def keep(
        self,
        making: ResponseInMaking,
        input_items: Sequence[Item],
        previous_id: str | None,
        owner: str,
    ) -> None:
        """Stores a response that is made, where that is wanted. Where it cannot be, the response
        says that it is not stored: its answer is worth more than that.
        """
        if not making.store:
            return
        stored = record_of(making, input_items, previous_id, owner, self._clock_s())
        try:
            await self.store.put(stored, [*ids_of(input_items), *making.item_ids()])
        except StoreError:
            # The store has told of it.
            making.store = False
            self._metrics.unstored.inc()

    async def find(self, response_id: str, owner: str) -> StoredResponse:
        """A response of the owner's.

        Raises:
            NotFoundError: there is none of that id.
            StoreError: the store does not work.
        """
        stored = await self.store.get(response_id, owner)
        if stored is not None and self._is_orphan(stored):
            await self.store.update(response_id, FAILED, with_end(stored, FAILED, DIED), ())
            stored = await self.store.get(response_id, owner)
        if stored is None:
            raise not_found(response_id)
        return stored

    async def delete(self, response_id: str, owner: str) -> None:
        """Forgets a response.

        Raises:
            NotFoundError: there is none of that id.
            StoreError: the store does not work.
        """
        if not await self.store.delete(response_id, owner):
            raise not_found(response_id)

    def _is_orphan(self, stored: StoredResponse) -> bool:
        return stored.is_running and self._clock_s() - stored.alive_at_s > DEAD_AFTER_S


def record_of(
    making: ResponseInMaking,
    input_items: Sequence[Item],
    previous_id: str | None,
    owner: str,
    now_s: float,
    *,
    is_background: bool = False,
    has_events: bool = False,
) -> StoredResponse:
    """A response as the store takes it."""
    return StoredResponse(
        response_id=making.response_id,
        owner=owner,
        status=making.status,
        response=making.json(),
        input_items=input_items,
        previous_id=previous_id,
        is_background=is_background,
        has_events=has_events,
        created_at_s=making.created_at_s,
        alive_at_s=now_s,
    )


def not_found(response_id: str) -> NotFoundError:
    """The error for a response that its caller does not have."""
    return NotFoundError(f"Response with id '{response_id}' not found.")
