"""Reads, ends and forgets responses that are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from services.gateway.openai.json_text import quoted
from services.gateway.openai.responses.archive import ResponseArchive
from services.gateway.openai.responses.background import BackgroundResponses
from services.gateway.openai.responses.events import CANCELLED, EventPrinter, is_last
from services.gateway.openai.responses.history import items_of
from services.gateway.openai.responses.paging import page_json
from services.gateway.openai.responses.store.base import StoredResponse
from services.gateway.openai.responses.stored_json import with_end
from services.gateway.openai.sampling import unsigned
from services.mesh.errors import InvalidRequestError
from tokenmesh.openai.v1 import response_pb2

FOLLOW_INTERVAL_S = 0.25
"""How often the events that another gateway stores are looked for."""

LAST_EVENT_LIMIT_S = 3.0
"""How long its maker may take to store the last event of a response that has ended. Longer than
until it sees that another gateway has cancelled it."""

EVENTS_AT_ONCE = 1_000


class Reading:
    """What can be done with a response once it is made, or while it is made in the background."""

    def __init__(self, archive: ResponseArchive, background: BackgroundResponses) -> None:
        self._archive = archive
        self._background = background

    async def response_json(self, response_id: str, owner: str) -> str:
        """The response.

        Raises:
            NotFoundError: the owner has none of that id.
        """
        return (await self._archive.find(response_id, owner)).response

    async def events(
        self, response_id: str, owner: str, starting_after: int | None
    ) -> AsyncGenerator[bytes, None]:
        """Its events, from the one after the number `starting_after`, and those still to come.

        Raises:
            NotFoundError: the owner has none of that id.
            InvalidRequestError: its events were never kept.
        """
        stored = await self._archive.find(response_id, owner)
        if not stored.has_events:
            raise InvalidRequestError(
                f"Response with id '{response_id}' cannot be streamed: it was not created with "
                "'background' and 'stream' set to true.",
                field="stream",
            )
        after = -1 if starting_after is None else unsigned("starting_after", starting_after)
        response = self._background.find(response_id)
        if response is not None:
            async for events in response.follow(after):
                yield events
            return
        async for events in self._stored_events(stored, owner, after):
            yield events

    async def _stored_events(
        self, stored: StoredResponse, owner: str, after: int
    ) -> AsyncGenerator[bytes, None]:
        """Of a response that another gateway makes, or that has ended."""
        response_id, store = stored.response_id, self._archive.store
        if not stored.is_running and after >= 0:
            known = await store.events(response_id, after - 1, 1)
            if not known or is_last(known[0]):
                return
        waits_left = round(LAST_EVENT_LIMIT_S / FOLLOW_INTERVAL_S)
        while True:
            while found := await store.events(response_id, after, EVENTS_AT_ONCE):
                after += len(found)
                yield b"".join(found)
                if is_last(found[-1]):
                    return
            if not stored.is_running:
                waits_left -= 1
            if waits_left < 0:
                break
            await asyncio.sleep(FOLLOW_INTERVAL_S)
            stored = await self._archive.find(response_id, owner)
        # Whoever made it has died, or could not store its events.
        printer = EventPrinter(after + 1)
        printer.end(stored.status, stored.response)
        yield b"".join(printer.take())

    async def cancel(self, response_id: str, owner: str) -> str:
        """Ends a response that is made in the background. Returns it.

        Raises:
            NotFoundError: the owner has none of that id.
            InvalidRequestError: it is not made in the background, or has ended by itself.
        """
        stored = await self._archive.find(response_id, owner)
        if not stored.is_background:
            raise InvalidRequestError("Cannot cancel a synchronous response.")
        running = self._background.find(response_id)
        if running is not None:
            await self._background.cancel(running)
        elif stored.is_running:
            # The gateway that makes it will see.
            await self._archive.store.update(
                response_id, CANCELLED, with_end(stored, CANCELLED), ()
            )
        stored = await self._archive.find(response_id, owner)
        if stored.status != CANCELLED:
            raise InvalidRequestError(f"Cannot cancel a {stored.status} response.")
        return stored.response

    async def delete(self, response_id: str, owner: str) -> str:
        """Forgets a response, and stops making it. Returns what is told of that.

        Raises:
            NotFoundError: the owner has none of that id.
        """
        await self._archive.delete(response_id, owner)
        running = self._background.find(response_id)
        if running is not None:
            await self._background.cancel(running)
        return f'{{"id":{quoted(response_id)},"object":"response","deleted":true}}'

    async def input_items(self, request: response_pb2.ListInputItemsRequest, owner: str) -> str:
        """A page of what the response was made from.

        Raises:
            NotFoundError: the owner has none of that id.
            InvalidRequestError: there can be no such page; or what it continues is gone.
        """
        stored = await self._archive.find(request.response_id, owner)
        past: list[StoredResponse] = []
        if stored.previous_id is not None:
            past = await self._archive.store.chain(stored.previous_id, owner)
        return page_json(
            [*items_of(past), *stored.input_items],
            after=request.after or None,
            before=request.before or None,
            limit=request.limit if request.HasField("limit") else None,
            order=request.order or None,
        )
