"""How a call of this API fails: with an HTTP status, or within a stream that has begun."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from google.api import httpbody_pb2

from services.gateway.openai.error_shape import OpenAIError, for_http, openai_error, status_with
from services.gateway.openai.spelling import Spelling
from services.mesh import status
from services.mesh.errors import MeshError
from services.mesh.interceptors import as_mesh_error, current_request_id

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"

Context = grpc.aio.ServicerContext[Any, Any]


class Failures:
    """Reports the errors of one call in OpenAI's words.

    Args:
        method: the RPC, for the log of a bug.
        spelling: what the fields of the request are called here.
        model: the name that the client asked for.
    """

    def __init__(self, context: Context, method: str, spelling: Spelling, model: str) -> None:
        self._context = context
        self._method = method
        self._spelling = spelling
        self._model = model

    async def abort(self, error: Exception) -> NoReturn:
        """Ends the call with the error's HTTP status."""
        known = self.known(error)
        shown = self.shown(known)
        await status.abort(self._context, known, current_request_id(), status_with(known, shown))

    def event(self, error: Exception) -> bytes:
        """The server-sent event that tells of an error once the status is out."""
        return self.shown(self.known(error)).event()

    def known(self, error: Exception) -> MeshError:
        """The error as it is answered. A bug is logged, and shows no internals."""
        return for_http(as_mesh_error(error, self._method))

    def shown(self, error: MeshError) -> OpenAIError:
        """What the client reads of it."""
        return openai_error(error, self._spelling, self._model)

    async def guard(
        self, bodies: AsyncGenerator[httpbody_pb2.HttpBody, None]
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """The bodies as they come. An error ends the call, or is told as the last event."""
        has_begun = False
        try:
            async with aclosing(bodies) as open_bodies:
                async for body in open_bodies:
                    has_begun = True
                    yield body
        except Exception as error:
            if not has_begun:
                await self.abort(error)
            yield httpbody_pb2.HttpBody(content_type=EVENT_STREAM, data=self.event(error))
