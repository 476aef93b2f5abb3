"""ChatService: a conversation answered once, or held for as long as a stream lives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from services.gateway.api.callers import caller_of
from services.gateway.api.converse import Converse
from services.gateway.api.deadlines import time_left_s
from services.gateway.api.leaving import abandon_when_over, when_over
from services.gateway.api.responses import responses
from services.gateway.keys.gate import Gate
from services.gateway.relay.admission import Admission
from services.gateway.relay.caller import Caller
from services.gateway.relay.relay import Relay
from services.gateway.requests import validation
from services.mesh.interceptors import current_request_id
from tokenmesh.gateway.v1 import chat_pb2, chat_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class ChatServicer(chat_pb2_grpc.ChatServiceServicer):
    """Answers conversations."""

    def __init__(self, relay: Relay, conversations: Admission, gate: Gate) -> None:
        """`conversations` bounds how many are held at once."""
        self._relay = relay
        self._conversations = conversations
        self._gate = gate

    async def Chat(
        self, request: chat_pb2.ChatRequest, context: Context
    ) -> AsyncIterator[chat_pb2.ChatResponse]:
        """Answers one conversation."""
        start = validation.chat_start(request, current_request_id())
        caller = caller_of(context, request.user)
        async with self._relay.generate(
            start, caller=caller, time_left_s=time_left_s(context)
        ) as generation:
            abandon_when_over(context, generation)
            async for response in responses(generation, chat_pb2.ChatResponse):
                yield response

    async def Converse(
        self, requests: AsyncIterator[chat_pb2.ConverseRequest], context: Context
    ) -> AsyncIterator[chat_pb2.ConverseResponse]:
        """Holds a conversation."""
        self._conversations.admit()
        when_over(context, self._conversations.release)
        # An answer that has begun: Envoy then waits for the client's turns as long as they take.
        await context.send_initial_metadata(())

        def begin_turn(model: str, user: str) -> Caller:
            self._gate.begin_turn(model)
            return caller_of(context, user)

        held = Converse(
            self._relay,
            requests,
            request_id=current_request_id(),
            begin_turn=begin_turn,
            time_left_s=lambda: time_left_s(context),
        )
        when_over(context, held.abandon)
        async for response in held.responses():
            yield response
