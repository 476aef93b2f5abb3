"""Adds a service of this API to a gRPC server, so that its requests are read as they were written.

Requests are read by the classes of `json_order`. One that protobuf cannot read, as what is nested
too deep, is refused in OpenAI's words instead of as a bug.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from services.gateway.openai.failures import Context, Failures
from services.gateway.openai.json_order import in_order
from services.gateway.openai.spelling import MODEL_SPELLING
from services.mesh.errors import InvalidRequestError

MAX_NESTED_OBJECTS = 33
"""Protobuf reads 100 messages within each other, and an object within an object takes three."""


def add_service(server: grpc.aio.Server, service: ServiceDescriptor, servicer: object) -> str:
    """Adds a servicer that has a method for each RPC. Returns the service's full name."""
    handlers = {
        method.name: _handler(method, getattr(servicer, method.name)) for method in service.methods
    }
    handler = grpc.method_handlers_generic_handler(service.full_name, handlers)
    server.add_generic_rpc_handlers((handler,))
    return service.full_name


def _handler(method: MethodDescriptor, answer: Any) -> grpc.RpcMethodHandler[Any, Any]:
    is_streaming = method.server_streaming
    make = (
        grpc.unary_stream_rpc_method_handler
        if is_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    return make(
        _stream(answer, method.name) if is_streaming else _unary(answer, method.name),
        request_deserializer=_reader(method),
        response_serializer=HttpBody.SerializeToString,
    )


def _reader(method: MethodDescriptor) -> Callable[[bytes], Message | None]:
    kind = in_order(message_factory.GetMessageClass(method.input_type))

    def read(raw: bytes) -> Message | None:
        try:
            return kind.FromString(raw)
        except DecodeError:
            return None

    return read


def _unary(
    answer: Callable[[Any, Context], Awaitable[HttpBody]], method: str
) -> Callable[[Message | None, Context], Awaitable[HttpBody]]:
    def respond(request: Message | None, context: Context) -> Awaitable[HttpBody]:
        return _refuse(context, method) if request is None else answer(request, context)

    return respond


def _stream(
    answer: Callable[[Any, Context], AsyncIterator[HttpBody]], method: str
) -> Callable[[Message | None, Context], AsyncIterator[HttpBody]]:
    def respond(request: Message | None, context: Context) -> AsyncIterator[HttpBody]:
        return _refusal(context, method) if request is None else answer(request, context)

    return respond


async def _refusal(context: Context, method: str) -> AsyncIterator[HttpBody]:
    yield await _refuse(context, method)


async def _refuse(context: Context, method: str) -> NoReturn:
    error = InvalidRequestError(
        "The request body is nested too deep: objects may stand within each other "
        f"{MAX_NESTED_OBJECTS} deep.",
        reason="NESTED_TOO_DEEP",
    )
    await Failures(context, method, MODEL_SPELLING, "").abort(error)
