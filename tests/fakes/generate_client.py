"""A gateway's side of a Generate stream, driven by hand."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from types import TracebackType
from typing import Any

import grpc

from services.mesh.errors import MeshError
from services.mesh.status import from_rpc_error, from_status
from tokenmesh.worker.v1 import worker_pb2, worker_pb2_grpc

# Far longer than anything takes: what waits so long has hung.
LIMIT_S = 30.0

Event = worker_pb2.SequenceEvent


class GenerateClient:
    """Use as an async context manager; leaving it cancels the stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        stub: Any = worker_pb2_grpc.WorkerServiceStub(channel)
        self.call = stub.Generate()
        self.events: dict[int, list[Event]] = defaultdict(list)
        self.steps: list[int] = []

    async def __aenter__(self) -> GenerateClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.call.cancel()

    async def send(self, request_key: int, **frame: Any) -> None:
        """Sends any frame."""
        await self.call.write(worker_pb2.GenerateRequest(request_key=request_key, **frame))

    async def start(
        self, request_key: int, *, text: str = "hello", model: str = "scripted", **fields: Any
    ) -> None:
        """Starts a request; `fields` are those of Start, sampling a dict."""
        await self.send(
            request_key, start={"text": text, "model": model, "request_id": "test", **fields}
        )

    async def abort(self, request_key: int) -> None:
        """Aborts a request."""
        await self.send(request_key, abort=worker_pb2.Abort(reason="test"))

    async def credit(self, request_key: int, tokens: int) -> None:
        """Grants credit."""
        await self.send(request_key, credit=worker_pb2.Credit(tokens=tokens))

    async def read(self) -> worker_pb2.GenerateResponse:
        """The next response. Its events are kept."""
        async with asyncio.timeout(LIMIT_S):
            response = await self.call.read()
        assert isinstance(response, worker_pb2.GenerateResponse), "the stream ended"
        self.steps.append(response.step)
        for event in response.events:
            self.events[event.request_key].append(event)
        return response

    async def read_until_ended(self, *request_keys: int, choices: int = 1) -> None:
        """Reads until each choice of each request has ended."""
        while any(len(self.ends(key)) < choices for key in request_keys):
            await self.read()

    async def read_tokens(self, request_key: int, tokens: int) -> None:
        """Reads until so many tokens of a request have come."""
        while len(self.token_ids(request_key)) < tokens:
            await self.read()

    async def failure(self) -> MeshError:
        """Reads until the stream fails, and tells how."""
        try:
            while True:
                await self.read()
        except grpc.RpcError as error:
            return from_rpc_error(error)

    def ends(self, request_key: int) -> list[Event]:
        """The events that end choices of a request."""
        return [
            event
            for event in self.events[request_key]
            if event.WhichOneof("event") in {"finished", "failed"}
        ]

    def error(self, request_key: int) -> MeshError:
        """How the first choice to end failed."""
        return from_status(self.ends(request_key)[0].failed.status)

    def text(self, request_key: int, choice_index: int = 0) -> str:
        """The text of a choice."""
        return "".join(
            event.chunk.text
            for event in self.events[request_key]
            if event.choice_index == choice_index
        )

    def token_ids(self, request_key: int, choice_index: int = 0) -> list[int]:
        """The tokens of a choice."""
        return [
            token_id
            for event in self.events[request_key]
            if event.choice_index == choice_index
            for token_id in event.chunk.token_ids
        ]

    def numbers(self, request_key: int, choice_index: int = 0) -> list[int]:
        """The numbers of a choice's events."""
        return [
            event.number for event in self.events[request_key] if event.choice_index == choice_index
        ]
