"""Unary calls that any worker of a model can answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc

from services.gateway.discovery.fleet import WorkerKey
from services.gateway.links.dispatch import Dispatch
from services.gateway.relay.admission import Admission
from services.mesh import status
from services.mesh.errors import MeshError, ModelNotFoundError, UnavailableError
from tokenmesh.worker.v1 import worker_pb2_grpc

Answer_co = TypeVar("Answer_co", covariant=True)


class OfModel(Protocol):
    """A request that names a model."""

    model: str


class Method(Protocol[Answer_co]):
    """An RPC of a worker."""

    def __call__(self, request: Any, *, timeout: float) -> Awaitable[Answer_co]:
        """Calls it, with a limit in seconds."""
        ...


Choose = Callable[["worker_pb2_grpc.WorkerServiceAsyncStub"], Method[Answer_co]]

TIME_LIMIT_S = 30.0
"""Tokenizing the longest prompt takes far less."""


class Forwarding:
    """Sends a call to a worker, and to another when that one cannot be reached."""

    def __init__(self, dispatch: Dispatch, admission: Admission, *, max_attempts: int) -> None:
        self._dispatch = dispatch
        self._admission = admission
        self._max_attempts = max_attempts

    async def call(
        self, request: OfModel, time_left_s: float | None, choose: Choose[Answer_co]
    ) -> Answer_co:
        """The worker's answer.

        Args:
            request: goes to the worker, with the model's own name in place of what the client asked
                for.
            time_left_s: how long the client waits; None as long as the gateway does.
            choose: picks the RPC from a worker's stub.

        Raises:
            QueueFullError: the gateway carries as many requests as it may.
            ModelNotFoundError, NoWorkerError: as `Directory.resolve`.
            MeshError: the worker's.
        """
        with self._admission.place():
            return await self._call(request, time_left_s, choose)

    async def _call(
        self, request: OfModel, time_left_s: float | None, choose: Choose[Answer_co]
    ) -> Answer_co:
        model = request.model
        limit_s = TIME_LIMIT_S if time_left_s is None else min(time_left_s, TIME_LIMIT_S)
        tried: set[WorkerKey] = set()
        resolution = self._dispatch.resolve(model)
        request.model = resolution.name
        link = self._dispatch.pick(resolution)
        while True:
            tried.add(link.key)
            try:
                return await choose(link.stub)(request, timeout=limit_s)
            except grpc.aio.AioRpcError as rpc_error:
                error = status.from_rpc_error(rpc_error)
            if (
                not isinstance(error, UnavailableError | ModelNotFoundError)
                or len(tried) >= self._max_attempts
            ):
                raise error
            try:
                link = self._dispatch.pick(self._dispatch.resolve(model), tried)
            except MeshError:
                # Nobody else is there, which says less than why it failed.
                raise error from None
