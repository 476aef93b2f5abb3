"""What every RPC of every service has: a request id, and errors that are typed."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
import structlog

from services.mesh import errors, status

log = structlog.get_logger()

MAX_REQUEST_ID_CHARACTERS = 128
# Health, reflection and channelz bring their own handlers, which write instead of yielding.
STANDARD_SERVICES = "/grpc."

Context = grpc.aio.ServicerContext[Any, Any]


def _bind_request_id(context: Context) -> str:
    """Takes the id that the client or Envoy gave the call, else a new one, and answers with it.

    It is bound for good, not for a block: grpc.aio serves each call in a task of its own, and a
    generator that is closed late runs in another one, where a binding cannot be undone.
    """
    given = dict(context.invocation_metadata() or ()).get(status.REQUEST_ID_KEY)
    usable = isinstance(given, str) and given and given.isprintable()
    request_id = str(given)[:MAX_REQUEST_ID_CHARACTERS] if usable else f"req-{uuid.uuid4().hex}"
    structlog.contextvars.bind_contextvars(request_id=request_id)
    context.set_trailing_metadata(((status.REQUEST_ID_KEY, request_id),))
    return request_id


def current_request_id() -> str:
    """The id of the call that this task serves. Empty outside of a call."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def as_mesh_error(error: BaseException, method: str) -> errors.MeshError:
    """A MeshError as it is; anything else is a bug: logged whole, reported without internals."""
    if isinstance(error, errors.MeshError):
        return error
    log.error("unhandled error", method=method, exc_info=error)
    return errors.InternalError(f"internal error; the log tells more of {current_request_id()}")


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Binds the request id to the logs, and turns exceptions into statuses with details."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler of one call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(STANDARD_SERVICES):
            return handler
        if handler.response_streaming:
            inner_stream: Any = handler.unary_stream or handler.stream_stream

            async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
                request_id = _bind_request_id(context)
                try:
                    async with aclosing(inner_stream(request, context)) as responses:
                        async for response in responses:
                            yield response
                except grpc.aio.AbortError:
                    raise
                except Exception as error:
                    await status.abort(context, as_mesh_error(error, method), request_id)

            make: Any = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(stream, handler.request_deserializer, handler.response_serializer)
        inner_unary: Any = handler.unary_unary or handler.stream_unary

        async def unary(request: Any, context: Context) -> Any:
            request_id = _bind_request_id(context)
            try:
                return await inner_unary(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await status.abort(context, as_mesh_error(error, method), request_id)

        make_unary: Any = (
            grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make_unary(unary, handler.request_deserializer, handler.response_serializer)
