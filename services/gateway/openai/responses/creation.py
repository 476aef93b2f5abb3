"""Makes responses: whole, streamed, or in the background."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

from google.api.httpbody_pb2 import HttpBody

from services.gateway.api.deadlines import time_left_s
from services.gateway.api.leaving import abandon_when_over
from services.gateway.discovery.directory import Directory
from services.gateway.openai.failures import EVENT_STREAM, JSON, Context, Failures
from services.gateway.openai.responses.archive import ResponseArchive, record_of
from services.gateway.openai.responses.background import BackgroundResponses
from services.gateway.openai.responses.background_response import BackgroundResponse
from services.gateway.openai.responses.events import EventPrinter
from services.gateway.openai.responses.making import ResponseInMaking
from services.gateway.openai.responses.preparing import PreparedResponse, Preparing
from services.gateway.openai.responses.spelling import ResponseSpelling
from services.gateway.openai.responses.stored_json import ids_of
from services.gateway.openai.seed_header import tell_seed
from services.gateway.relay.relay import Generation, Relay
from services.gateway.requests import requirements
from tokenmesh.openai.v1 import response_pb2


class Creation:
    """Makes the responses of one gateway."""

    def __init__(
        self,
        relay: Relay,
        directory: Directory,
        archive: ResponseArchive,
        background: BackgroundResponses,
        preparing: Preparing,
    ) -> None:
        self._relay = relay
        self._directory = directory
        self._archive = archive
        self._background = background
        self._preparing = preparing

    async def bodies(
        self,
        request: response_pb2.CreateResponseRequest,
        context: Context,
        failures: Failures,
        spelling: ResponseSpelling,
    ) -> AsyncGenerator[HttpBody, None]:
        """One body, or server-sent events.

        Raises:
            MeshError: before the first of them. What fails later is told by the last event.
        """
        prepared = await self._preparing.prepare(request, context, spelling)
        if prepared.asked.background:
            async for body in self._in_background(prepared, failures):
                yield body
            return
        async with self._relay.generate(
            prepared.start,
            caller=prepared.caller,
            time_left_s=time_left_s(context),
            whole=not prepared.asked.stream,
        ) as generation:
            abandon_when_over(context, generation)
            if prepared.asked.stream:
                async for body in self._stream(prepared, generation, context, failures):
                    yield body
                return
            making = prepared.making(generation.created_at_s, generation.model, None)
            async for events in generation:
                making.take(events, time.time())
            await self._keep(making, prepared)
            await tell_seed(context, (generation,))
            yield HttpBody(content_type=JSON, data=making.json().encode())

    async def _stream(
        self,
        prepared: PreparedResponse,
        generation: Generation,
        context: Context,
        failures: Failures,
    ) -> AsyncGenerator[HttpBody, None]:
        printer = EventPrinter()
        making = prepared.making(generation.created_at_s, generation.model, printer)
        has_begun = False
        try:
            async for events in generation:
                if not has_begun:
                    has_begun = True
                    await tell_seed(context, (generation,))
                    printer.response("created", making.json())
                    printer.response("in_progress", making.json())
                making.take(events, time.time())
                printed = printer.take()
                if printed:
                    yield HttpBody(content_type=EVENT_STREAM, data=b"".join(printed))
        except Exception as error:
            if not has_begun:
                raise
            known = failures.known(error)
            making.fail(known, failures.shown(known).message)
        await self._keep(making, prepared)
        printer.response(making.status, making.json())
        yield HttpBody(content_type=EVENT_STREAM, data=b"".join(printer.take()))

    async def _in_background(
        self, prepared: PreparedResponse, failures: Failures
    ) -> AsyncGenerator[HttpBody, None]:
        asked = prepared.asked
        # What can be known to fail fails now, while its client still listens.
        resolution = self._directory.resolve(prepared.start.model)
        requirements.check(prepared.start, resolution.model)
        printer = EventPrinter() if asked.stream else None
        now_s = time.time()
        making = prepared.making(now_s, resolution.name, printer)
        response = BackgroundResponse(making, printer, lambda error: failures.shown(error).message)
        stored = record_of(
            making,
            prepared.input_items,
            asked.previous_response_id,
            prepared.owner,
            now_s,
            is_background=True,
            has_events=asked.stream,
        )
        body = making.json()
        await self._background.begin(
            response, stored, ids_of(prepared.input_items), prepared.start, prepared.caller
        )
        if not asked.stream:
            yield HttpBody(content_type=JSON, data=body.encode())
            return
        async for events in response.follow(-1):
            yield HttpBody(content_type=EVENT_STREAM, data=events)

    async def _keep(self, making: ResponseInMaking, prepared: PreparedResponse) -> None:
        await self._archive.keep(
            making, prepared.input_items, prepared.asked.previous_response_id, prepared.owner
        )
