"""Workers and gateways as a controller sees them, over real gRPC, driven by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from services.mesh.errors import MeshError
from services.mesh.release import PROTOCOL_VERSION
from services.mesh.server import MeshServer
from services.mesh.status import from_rpc_error
from tokenmesh.controller.v1 import (
    endpoint_pb2,
    endpoint_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from tokenmesh.mesh.v1 import model_pb2

# Far longer than anything takes: what waits so long has hung.
LIMIT_S = 30.0


@asynccontextmanager
async def reachable_address() -> AsyncIterator[str]:
    """The address of a gRPC server that answers health checks, and nothing else."""
    server = MeshServer("127.0.0.1", 0)
    await server.start(())
    try:
        yield server.address
    finally:
        await server.stop(0)


@asynccontextmanager
async def silent_address(port: int = 0) -> AsyncIterator[str]:
    """An address that takes connections and never says a word."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", port)
    try:
        host, taken = server.sockets[0].getsockname()
        yield f"{host}:{taken}"
    finally:
        server.close()


@contextmanager
def refusing(address: str) -> Iterator[None]:
    """Keeps the address of a stopped server: it refuses, and nobody else takes it."""
    host, _, port = address.rpartition(":")
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, int(port)))
        yield


def hello(address: str, worker_id: str = "w", incarnation: str = "a") -> registry_pb2.Hello:
    """A Hello that is in order."""
    return registry_pb2.Hello(
        protocol_version=PROTOCOL_VERSION,
        worker_id=worker_id,
        incarnation=incarnation,
        address=address,
        models=[model_pb2.Model(name="m", aliases=["m-latest"], context_length_tokens=128)],
        capacity=registry_pb2.Capacity(max_running=4, max_waiting=8, speed=1),
        state=registry_pb2.WORKER_STATE_SERVING,
        labels={"zone": "a"},
        release="0.0.0",
    )


class Stream:
    """One bidirectional call, every wait with a limit."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def write(self, frame: Any) -> None:
        """Sends a frame."""
        async with asyncio.timeout(LIMIT_S):
            await self._call.write(frame)

    async def read(self) -> Any:
        """The next frame, or grpc.aio.EOF.

        Raises:
            MeshError: what the stream failed with.
        """
        try:
            async with asyncio.timeout(LIMIT_S):
                return await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def half_close(self) -> None:
        """Sends nothing more."""
        await self._call.done_writing()

    async def failure(self) -> MeshError:
        """What the stream fails with, after whatever still comes."""
        try:
            while await self.read() is not grpc.aio.EOF:
                pass
        except MeshError as error:
            return error
        raise AssertionError("the stream ended well")

    async def end(self) -> None:
        """Waits until the stream has ended well."""
        while await self.read() is not grpc.aio.EOF:
            pass
        assert await self._call.code() is grpc.StatusCode.OK

    def cancel(self) -> None:
        """Breaks the stream."""
        self._call.cancel()


class AttachPeer(Stream):
    """A worker's Attach stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        super().__init__(registry_pb2_grpc.RegistryServiceStub(channel).Attach())
        self.lease_id = ""
        self.beats = 0

    async def attach(self, hello: registry_pb2.Hello) -> registry_pb2.LeaseGranted:
        """Sends the Hello and waits for the lease."""
        await self.write(registry_pb2.AttachRequest(hello=hello))
        response = await self.read()
        assert response.WhichOneof("frame") == "lease_granted"
        self.lease_id = response.lease_id
        granted: registry_pb2.LeaseGranted = response.lease_granted
        return granted

    async def send(self, **frame: Any) -> None:
        """Sends a frame on this stream's lease."""
        await self.write(registry_pb2.AttachRequest(lease_id=self.lease_id, **frame))

    async def beat(
        self,
        running: int = 0,
        state: registry_pb2.WorkerState.ValueType = registry_pb2.WORKER_STATE_SERVING,
    ) -> None:
        """Sends a heartbeat and waits for its answer."""
        self.beats += 1
        load = registry_pb2.Load(running=running)
        heartbeat = registry_pb2.Heartbeat(number=self.beats, load=load, state=state)
        await self.send(heartbeat=heartbeat)
        response = await self.read()
        assert response.lease_renewed.number == self.beats
        assert response.lease_id == self.lease_id

    async def settle(self, command_id: str, status: status_pb2.Status | None = None) -> None:
        """Answers a command: with OK, or with the status."""
        outcome = registry_pb2.CommandOutcome(command_id=command_id, status=status)
        await self.send(command_outcome=outcome)


class WatchPeer(Stream):
    """A gateway's Watch stream, and what the gateway knows from it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        super().__init__(endpoint_pb2_grpc.EndpointServiceStub(channel).Watch())
        self.snapshot = endpoint_pb2.Snapshot()
        self.revision = 0
        self.completeness = endpoint_pb2.COMPLETENESS_UNSPECIFIED
        self.workers: dict[str, endpoint_pb2.Worker] = {}
        self.removals: list[endpoint_pb2.Removal] = []

    async def subscribe(self, gateway_id: str = "g") -> None:
        """Subscribes and takes in the snapshot."""
        await self.write(subscribe(gateway_id))
        response = await self.read()
        assert response.WhichOneof("frame") == "snapshot"
        self.snapshot = response.snapshot
        self.revision = response.revision
        self.completeness = response.snapshot.completeness
        self.workers = {worker.worker_id: worker for worker in response.snapshot.workers}

    async def follow(self) -> None:
        """Takes in the next delta."""
        response = await self.read()
        assert response.WhichOneof("frame") == "delta"
        assert response.revision > self.revision
        self.revision = response.revision
        self.completeness = response.delta.completeness
        for removal in response.delta.removed:
            self.removals.append(removal)
            known = self.workers.get(removal.worker_id)
            if known is not None and known.incarnation == removal.incarnation:
                del self.workers[removal.worker_id]
        for worker in response.delta.upserted:
            self.workers[worker.worker_id] = worker

    async def until(self, holds: Callable[[], bool]) -> None:
        """Takes in deltas until the condition holds."""
        async with asyncio.timeout(LIMIT_S):
            while not holds():
                await self.follow()

    async def report(self, worker_id: str, incarnation: str, reason: str = "WORKER_LOST") -> None:
        """Reports a failure of a worker."""
        info = error_details_pb2.ErrorInfo(reason=reason, domain="tokenmesh")
        status = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="gone")
        status.details.add().Pack(info)
        report = endpoint_pb2.FailureReport(
            worker_id=worker_id, incarnation=incarnation, status=status
        )
        await self.write(endpoint_pb2.WatchRequest(failure_report=report))


def subscribe(gateway_id: str = "g") -> endpoint_pb2.WatchRequest:
    """A Subscribe that is in order."""
    return endpoint_pb2.WatchRequest(
        subscribe=endpoint_pb2.Subscribe(protocol_version=PROTOCOL_VERSION, gateway_id=gateway_id)
    )
