"""Stands before a real worker and cuts its Generate streams after so many events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from services.mesh.channels import open_channel
from tests.fakes.fake_worker import FakeWorker
from tokenmesh.worker.v1 import worker_pb2, worker_pb2_grpc


class Scissors:
    """Where the streams of several workers are cut: each number is used once, by whichever stream
    carries the request at that time. A step's message is cut in the middle where it must be.
    """

    def __init__(self) -> None:
        self.events_until_cuts: list[int] = []


class CuttingWorker(FakeWorker):
    """Forwards to `target` what a generation needs. Use as an async context manager."""

    def __init__(self, port: int, target: str, scissors: Scissors) -> None:
        super().__init__((), port=port)
        self._scissors = scissors
        self._channel = open_channel(target)
        self._stub: Any = worker_pb2_grpc.WorkerServiceStub(self._channel)

    async def die(self) -> None:
        """Ends the streams, here and there."""
        await super().die()
        await self._channel.close()

    async def DescribeModels(
        self, request: worker_pb2.DescribeModelsRequest, context: Any
    ) -> worker_pb2.DescribeModelsResponse:
        answer: worker_pb2.DescribeModelsResponse = await self._stub.DescribeModels(request)
        return answer

    async def Generate(
        self, request_iterator: AsyncIterator[worker_pb2.GenerateRequest], context: Any
    ) -> AsyncIterator[worker_pb2.GenerateResponse]:
        call = self._stub.Generate()
        feeding = asyncio.create_task(_feed(call, request_iterator))
        try:
            async for response in call:
                cuts = self._scissors.events_until_cuts
                if cuts and len(response.events) >= cuts[0]:
                    del response.events[cuts.pop(0) :]
                    yield response
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the stream was cut")
                if cuts:
                    cuts[0] -= len(response.events)
                yield response
        finally:
            feeding.cancel()
            call.cancel()


async def _feed(call: Any, frames: AsyncIterator[worker_pb2.GenerateRequest]) -> None:
    async for frame in frames:
        await call.write(frame)
