"""CompletionService: plain text completion."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from services.gateway.api.callers import caller_of
from services.gateway.api.deadlines import time_left_s
from services.gateway.api.leaving import abandon_when_over
from services.gateway.api.responses import responses
from services.gateway.relay.relay import Relay
from services.gateway.requests import validation
from services.mesh.interceptors import current_request_id
from tokenmesh.gateway.v1 import completion_pb2, completion_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class CompletionServicer(completion_pb2_grpc.CompletionServiceServicer):
    """Continues texts."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def Complete(
        self, request: completion_pb2.CompleteRequest, context: Context
    ) -> AsyncIterator[completion_pb2.CompleteResponse]:
        """Continues one prompt."""
        start = validation.completion_start(request, current_request_id())
        caller = caller_of(context, request.user)
        async with self._relay.generate(
            start, caller=caller, time_left_s=time_left_s(context)
        ) as generation:
            abandon_when_over(context, generation)
            async for response in responses(generation, completion_pb2.CompleteResponse):
                yield response
