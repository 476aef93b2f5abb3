"""A client of /v1/responses that speaks to a gateway as Envoy does."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf import json_format
from google.rpc import status_pb2

from services.gateway.openai.json_fields import plain
from services.mesh.channels import open_channel
from services.mesh.status import STATUS_DETAILS_KEY
from tests.fakes.fake_worker import MODEL
from tokenmesh.openai.v1 import response_pb2, response_pb2_grpc
from tokenmesh.openai.v1.error_pb2 import Error


class ResponseError(Exception):
    """A call that failed, with what an HTTP client would read of it."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        super().__init__(error.details())
        self.code = error.code()
        packed = dict(error.trailing_metadata() or ())[STATUS_DETAILS_KEY]
        assert isinstance(packed, bytes)
        (detail,) = status_pb2.Status.FromString(packed).details
        told = Error()
        assert detail.Unpack(told)
        self.message = told.message
        self.param: str | None = plain(told.param)
        self.reason: str | None = plain(told.code)


class ResponsesClient:
    """Calls of ResponseService, with their JSON read. Use as an async context manager."""

    def __init__(self, address: str, key: str | None = None) -> None:
        self._channel = open_channel(address)
        self._stub: Any = response_pb2_grpc.ResponseServiceStub(self._channel)
        self._metadata = () if key is None else (("authorization", f"Bearer {key}"),)

    async def __aenter__(self) -> ResponsesClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def create(self, **body: Any) -> dict[str, Any]:
        """The response."""
        (only,) = [data async for data in self._bodies("CreateResponse", _create(body))]
        return dict(json.loads(only))

    async def stream(self, **body: Any) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a streamed response."""
        request = _create({**body, "stream": True})
        async with aclosing(self._bodies("CreateResponse", request)) as bodies:
            async for data in bodies:
                for event in events_in(data):
                    yield event

    async def retrieve(self, response_id: str) -> dict[str, Any]:
        """A stored response."""
        request = response_pb2.RetrieveResponseRequest(response_id=response_id)
        (only,) = [data async for data in self._bodies("RetrieveResponse", request)]
        return dict(json.loads(only))

    async def events(
        self, response_id: str, starting_after: int | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a stored response."""
        request = response_pb2.RetrieveResponseRequest(
            response_id=response_id, stream=True, starting_after=starting_after
        )
        async for data in self._bodies("RetrieveResponse", request):
            for event in events_in(data):
                yield event

    async def delete(self, response_id: str) -> dict[str, Any]:
        """What is told of a response that is forgotten."""
        request = response_pb2.DeleteResponseRequest(response_id=response_id)
        return await self._whole("DeleteResponse", request)

    async def cancel(self, response_id: str) -> dict[str, Any]:
        """The cancelled response."""
        request = response_pb2.CancelResponseRequest(response_id=response_id)
        return await self._whole("CancelResponse", request)

    async def input_items(self, response_id: str, **query: Any) -> dict[str, Any]:
        """A page of items."""
        request = response_pb2.ListInputItemsRequest(response_id=response_id, **query)
        return await self._whole("ListInputItems", request)

    async def _whole(self, method: str, request: Any) -> dict[str, Any]:
        try:
            body = await getattr(self._stub, method)(request, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise ResponseError(error) from error
        return dict(json.loads(body.data))

    async def _bodies(self, method: str, request: Any) -> AsyncGenerator[bytes, None]:
        call = getattr(self._stub, method)(request, metadata=self._metadata)
        try:
            async for body in call:
                yield body.data
        except grpc.aio.AioRpcError as error:
            raise ResponseError(error) from error
        finally:
            call.cancel()


def _create(body: dict[str, Any]) -> response_pb2.CreateResponseRequest:
    return json_format.ParseDict(
        {"model": MODEL, "input": "Hi", **body}, response_pb2.CreateResponseRequest()
    )


def events_in(data: bytes) -> list[dict[str, Any]]:
    """The server-sent events that come together."""
    return [
        json.loads(event.partition("data: ")[2]) for event in data.decode().split("\n\n") if event
    ]
