"""One Attach call, as frames to send and to read, with errors that tell why it ended."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.rpc import status_pb2

from services.mesh import status
from services.mesh.errors import MeshError, UnavailableError
from tokenmesh.controller.v1 import registry_pb2, registry_pb2_grpc

# What grpc.aio raises when a call is used that has ended.
_ENDED = (grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError)


class LeaseCall:
    """Use as a context manager; leaving it cancels the call."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        stub: Any = registry_pb2_grpc.RegistryServiceStub(channel)
        self.lease_id = ""
        self._call = stub.Attach()
        # A call takes one frame at a time.
        self._writing = asyncio.Lock()

    def __enter__(self) -> LeaseCall:
        return self

    def __exit__(self, *_: object) -> None:
        self._call.cancel()

    async def send(
        self,
        frame: registry_pb2.Hello
        | registry_pb2.Heartbeat
        | registry_pb2.Leaving
        | registry_pb2.CommandOutcome,
    ) -> None:
        """Sends a frame of the lease.

        Raises:
            MeshError: the call has ended.
        """
        request = registry_pb2.AttachRequest(lease_id=self.lease_id)
        if isinstance(frame, registry_pb2.Hello):
            request.hello.CopyFrom(frame)
        elif isinstance(frame, registry_pb2.Heartbeat):
            request.heartbeat.CopyFrom(frame)
        elif isinstance(frame, registry_pb2.Leaving):
            request.leaving.CopyFrom(frame)
        else:
            request.command_outcome.CopyFrom(frame)
        async with self._writing:
            try:
                await self._call.write(request)
            except _ENDED as error:
                raise await self._why_ended() from error

    async def read(self) -> registry_pb2.AttachResponse:
        """The next frame of the controller.

        Raises:
            MeshError: the call has ended, well or badly.
        """
        try:
            response = await self._call.read()
        except _ENDED as error:
            raise await self._why_ended() from error
        if response is grpc.aio.EOF:
            raise await self._why_ended()
        assert isinstance(response, registry_pb2.AttachResponse)
        return response

    async def _why_ended(self) -> MeshError:
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return UnavailableError("the controller ended the stream")
        packed = dict(await self._call.trailing_metadata() or ()).get(status.STATUS_DETAILS_KEY)
        if isinstance(packed, bytes):
            return status.from_status(status_pb2.Status.FromString(packed))
        number, _ = code.value
        message = await self._call.details() or str(code)
        return status.from_status(status_pb2.Status(code=number, message=message))
