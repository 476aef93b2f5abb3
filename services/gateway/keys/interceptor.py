"""Lets in who has a key, before anything of a request is looked at.

Health and reflection stay open: load balancers ask the one, and the other tells what proto/ has
published already.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, cast

import grpc
import structlog

from services.gateway.api.leaving import when_over
from services.gateway.keys.account import Account
from services.gateway.keys.current import bind_access, bind_place
from services.gateway.keys.headers import Context, LimitHeaders
from services.gateway.keys.model_access import ModelAccess
from services.gateway.keys.place import LetGo
from services.gateway.keys.presented import presented_key
from services.gateway.keys.ring import Access, KeyRing
from services.gateway.openai.failures import Failures
from services.gateway.openai.spelling import MODEL_SPELLING
from services.mesh import status
from services.mesh.errors import MeshError
from services.mesh.interceptors import current_request_id

OPEN_SERVICES = ("/grpc.health.", "/grpc.reflection.")
OPENAI_SERVICES = "/tokenmesh.openai."

UNMETERED = frozenset(
    {
        "/tokenmesh.gateway.v1.ModelService/ListModels",
        "/tokenmesh.gateway.v1.ModelService/GetModel",
        "/tokenmesh.openai.v1.ModelService/ListModels",
        "/tokenmesh.openai.v1.ModelService/RetrieveModel",
        "/tokenmesh.openai.v1.ResponseService/RetrieveResponse",
        "/tokenmesh.openai.v1.ResponseService/ListInputItems",
        "/tokenmesh.openai.v1.ResponseService/CancelResponse",
        "/tokenmesh.openai.v1.ResponseService/DeleteResponse",
    }
)
"""What is no request as rates count them: looking at what there is, and giving it up."""

TURNS = frozenset({"/tokenmesh.gateway.v1.ChatService/Converse"})
"""Calls that hold many requests: each is counted when it comes."""


class KeyInterceptor(grpc.aio.ServerInterceptor):
    """Authenticates each call, counts it against its key's limits, and checks its model."""

    def __init__(self, ring: KeyRing, models: ModelAccess) -> None:
        self._ring = ring
        self._models = models

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler of one call, or answers in its place."""
        method = handler_call_details.method
        if method.startswith(OPEN_SERVICES):
            return await continuation(handler_call_details)
        try:
            metadata = handler_call_details.invocation_metadata or ()
            access = self._ring.authenticate(presented_key(metadata))
        except MeshError as error:
            return _refusing(method, error)
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        call = _Call(method, access, self._models)
        if handler.response_streaming:
            make: Any = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            behaviour: Any = call.streaming(handler.unary_stream or handler.stream_stream)
        else:
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            behaviour = call.unary(handler.unary_unary or handler.stream_unary)
        return make(behaviour, handler.request_deserializer, handler.response_serializer)


class _Call:
    """One call of somebody who was let in."""

    def __init__(self, method: str, access: Access, models: ModelAccess) -> None:
        self._method = method
        self._access = access
        self._models = models
        self._leave: LetGo

    def streaming(self, inner: Any) -> Any:
        """The behaviour of a call that answers with a stream."""

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            told = self._told(context)
            await self._enter(request, told)
            async with aclosing(inner(request, told)) as responses:
                async for response in responses:
                    if not told.are_sent:
                        await told.send()
                    yield response
            # Before its client can know of the end, and come again.
            self._leave()

        return stream

    def unary(self, inner: Any) -> Any:
        """The behaviour of a call that answers once."""

        async def answer(request: Any, context: Context) -> Any:
            told = self._told(context)
            await self._enter(request, told)
            response = await inner(request, told)
            if not told.are_sent:
                await told.send()
            self._leave()
            return response

        return answer

    def _told(self, context: Context) -> LimitHeaders:
        return LimitHeaders(context, self._access.account)

    async def _enter(self, request: Any, context: LimitHeaders) -> None:
        """Ends the call where its key may not make it."""
        bind_access(self._access, self._models.check)
        structlog.contextvars.bind_contextvars(key=self._access.account.key.name)
        try:
            self._admit(self._access.account, request, context)
        except MeshError as error:
            await _refuse(self._method, error, cast("Context", context))

    def _admit(self, account: Account, request: Any, context: LimitHeaders) -> None:
        model = getattr(request, "model", "")
        if model:
            self._models.check(account, model)
        is_request = self._method not in UNMETERED
        place = account.enter() if is_request else account.enter_to_look()
        self._leave = place.hold()
        bind_place(place)
        when_over(cast("Context", context), self._leave)
        if is_request and self._method not in TURNS:
            account.begin_request()


def _refusing(method: str, error: MeshError) -> Any:
    """A handler that answers with the error, whatever the call's own would do. It takes a stream:
    so not even the first message is read.
    """

    async def refuse(requests: Any, context: Context) -> AsyncIterator[Any]:
        await _refuse(method, error, context)
        yield

    return grpc.stream_stream_rpc_method_handler(refuse)


async def _refuse(method: str, error: MeshError, context: Context) -> NoReturn:
    """Ends the call in the words of its API: OpenAI's, or google.rpc's."""
    if method.startswith(OPENAI_SERVICES):
        await Failures(context, method, MODEL_SPELLING, "").abort(error)
    await status.abort(context, error, current_request_id())
