"""The calls that run at a worker beside its stream: each asks one thing and gets one answer."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import grpc

from services.mesh.errors import WorkerLostError

Answer = TypeVar("Answer")


class UnaryCalls:
    """The calls of one link. When its worker is lost, so are they."""

    def __init__(self) -> None:
        self._running: set[grpc.aio.UnaryUnaryCall[Any, Any]] = set()
        self._lost: dict[grpc.aio.UnaryUnaryCall[Any, Any], WorkerLostError] = {}

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, call: grpc.aio.UnaryUnaryCall[Any, Any]) -> None:
        """Counts a call that was made. `answer` it next."""
        self._running.add(call)

    async def answer(self, call: grpc.aio.UnaryUnaryCall[Any, Answer]) -> Answer:
        """The answer of a call that has begun. Who is cancelled here cancels the call.

        Raises:
            WorkerLostError: the worker was lost meanwhile.
            grpc.aio.AioRpcError: the call failed.
        """
        try:
            return await call
        except asyncio.CancelledError:
            error = self._lost.get(call)
            if error is None:
                raise
            raise error from None
        finally:
            self._running.discard(call)
            self._lost.pop(call, None)

    def lose(self, error: WorkerLostError) -> None:
        """Ends all of them with the error."""
        for call in tuple(self._running):
            self._lost[call] = error
            call.cancel()
