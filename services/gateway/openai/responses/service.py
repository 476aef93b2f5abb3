"""/v1/responses and what is below it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable

from google.api.httpbody_pb2 import HttpBody

from services.gateway.openai.failures import EVENT_STREAM, JSON, Context, Failures
from services.gateway.openai.responses.counting import Counting
from services.gateway.openai.responses.creation import Creation
from services.gateway.openai.responses.owners import current_owner
from services.gateway.openai.responses.reading import Reading
from services.gateway.openai.responses.spelling import ResponseSpelling
from tokenmesh.openai.v1 import response_pb2, response_pb2_grpc


class Responses(response_pb2_grpc.ResponseServiceServicer):
    """/v1/responses and what is below it."""

    def __init__(self, creation: Creation, counting: Counting, reading: Reading) -> None:
        self._creation = creation
        self._counting = counting
        self._reading = reading

    def CreateResponse(
        self, request: response_pb2.CreateResponseRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        """One body, or server-sent events."""
        spelling = ResponseSpelling()
        failures = Failures(context, "CreateResponse", spelling, request.model)
        return failures.guard(self._creation.bodies(request, context, failures, spelling))

    async def CountResponseInputTokens(
        self, request: response_pb2.CountResponseInputTokensRequest, context: Context
    ) -> HttpBody:
        """How many tokens an input has."""
        spelling = ResponseSpelling()
        failures = Failures(context, "CountResponseInputTokens", spelling, request.model)
        return await _whole(self._counting.input_tokens(request, context, spelling), failures)

    def RetrieveResponse(
        self, request: response_pb2.RetrieveResponseRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        """One body, or the events of one that was made in the background."""
        failures = _failures(context, "RetrieveResponse")
        return failures.guard(self._retrieve(request, context))

    async def DeleteResponse(
        self, request: response_pb2.DeleteResponseRequest, context: Context
    ) -> HttpBody:
        """Forgets a response."""
        owner = current_owner()
        return await _whole(
            self._reading.delete(request.response_id, owner), _failures(context, "DeleteResponse")
        )

    async def CancelResponse(
        self, request: response_pb2.CancelResponseRequest, context: Context
    ) -> HttpBody:
        """Stops a response that runs in the background."""
        owner = current_owner()
        return await _whole(
            self._reading.cancel(request.response_id, owner), _failures(context, "CancelResponse")
        )

    async def ListInputItems(
        self, request: response_pb2.ListInputItemsRequest, context: Context
    ) -> HttpBody:
        """What a response was made from."""
        owner = current_owner()
        return await _whole(
            self._reading.input_items(request, owner), _failures(context, "ListInputItems")
        )

    async def _retrieve(
        self, request: response_pb2.RetrieveResponseRequest, context: Context
    ) -> AsyncGenerator[HttpBody, None]:
        owner = current_owner()
        if not request.stream:
            body = await self._reading.response_json(request.response_id, owner)
            yield HttpBody(content_type=JSON, data=body.encode())
            return
        starting_after = request.starting_after if request.HasField("starting_after") else None
        async for events in self._reading.events(request.response_id, owner, starting_after):
            yield HttpBody(content_type=EVENT_STREAM, data=events)


def _failures(context: Context, method: str) -> Failures:
    return Failures(context, method, ResponseSpelling(), "")


async def _whole(body: Awaitable[str], failures: Failures) -> HttpBody:
    """The body, or the call's end with an error."""
    try:
        return HttpBody(content_type=JSON, data=(await body).encode())
    except Exception as error:
        await failures.abort(error)
