"""Watching a controller: what it tells goes to the directory, failures seen here go up to it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

import grpc
import structlog

from services.gateway.discovery import contract
from services.gateway.discovery.directory import Directory
from services.gateway.metrics import GatewayMetrics
from services.mesh import status
from services.mesh.channels import open_channel
from services.mesh.errors import MeshError
from services.mesh.release import PROTOCOL_VERSION, RELEASE
from tokenmesh.controller.v1 import endpoint_pb2, endpoint_pb2_grpc

log = structlog.get_logger()

MAX_UNSENT_REPORTS = 256
"""The oldest go first: a report matters for seconds only."""

RETRY_INITIAL_S = 0.1
RETRY_MAX_S = 1.0
"""Below a heartbeat interval, so that a restarted controller is watched again at once."""


class ControllerWatch:
    """One Watch stream to one controller, opened again whenever it ends.

    Args:
        address: "host:port" of the controller.
        on_change: called after each change of the directory.
    """

    def __init__(
        self,
        address: str,
        gateway_id: str,
        directory: Directory,
        metrics: GatewayMetrics,
        *,
        on_change: Callable[[], None],
    ) -> None:
        self.address = address
        self.attempted = asyncio.Event()
        """Set once the controller has answered, or could not be reached, for the first time."""
        self._gateway_id = gateway_id
        self._directory = directory
        self._on_change = on_change
        self._connected = metrics.controller_connected.labels(address)
        self._connected.set(0)
        self._is_connected = False
        self._reports: deque[endpoint_pb2.FailureReport] = deque(maxlen=MAX_UNSENT_REPORTS)
        self._has_reports = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether the controller tells what changes."""
        return self._is_connected

    async def run(self) -> None:
        """Watches until cancelled."""
        async with open_channel(self.address) as channel:
            stub = endpoint_pb2_grpc.EndpointServiceStub(channel)
            retry_s = RETRY_INITIAL_S
            while True:
                error = await self._watch_once(stub)
                if self._is_connected:
                    retry_s = RETRY_INITIAL_S
                self._lose(error)
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, RETRY_MAX_S)

    def report(self, worker_id: str, incarnation: str, error: MeshError) -> None:
        """Tells the controller of a failure that was seen on a worker."""
        report = endpoint_pb2.FailureReport(
            worker_id=worker_id, incarnation=incarnation, status=status.to_status(error)
        )
        report.observed_at.GetCurrentTime()
        self._reports.append(report)
        self._has_reports.set()

    async def _watch_once(self, stub: endpoint_pb2_grpc.EndpointServiceAsyncStub) -> str:
        """Follows one stream to its end. Returns why it ended."""
        try:
            async for response in stub.Watch(self._requests()):
                self._apply(response)
        except asyncio.CancelledError:
            # grpc.aio raises it also for a call that it has cancelled by itself.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            return "the stream was cancelled"
        except grpc.aio.AioRpcError as error:
            return status.from_rpc_error(error).message
        except Exception as error:
            # Whatever a controller sends, the gateway goes on with what it knows.
            log.exception("cannot read the controller's stream", controller=self.address)
            return f"its stream cannot be read: {type(error).__name__}"
        return "the controller ended the stream"

    async def _requests(self) -> AsyncIterator[endpoint_pb2.WatchRequest]:
        subscribe = endpoint_pb2.Subscribe(
            protocol_version=PROTOCOL_VERSION, gateway_id=self._gateway_id, release=RELEASE
        )
        yield endpoint_pb2.WatchRequest(subscribe=subscribe)
        while True:
            await self._has_reports.wait()
            self._has_reports.clear()
            while self._reports:
                yield endpoint_pb2.WatchRequest(failure_report=self._reports.popleft())

    def _apply(self, response: endpoint_pb2.WatchResponse) -> None:
        frame = response.WhichOneof("frame")
        if frame == "snapshot":
            snapshot = response.snapshot
            self._directory.apply_snapshot(
                self.address,
                [contract.to_worker(worker) for worker in snapshot.workers],
                is_complete=snapshot.completeness == endpoint_pb2.COMPLETENESS_COMPLETE,
            )
            if not self._is_connected:
                log.info("controller is watched", controller=self.address)
            self._is_connected = True
            self._connected.set(1)
            self.attempted.set()
        elif frame == "delta":
            delta = response.delta
            self._directory.apply_delta(
                self.address,
                [contract.to_worker(worker) for worker in delta.upserted],
                [contract.to_removal(removal) for removal in delta.removed],
                is_complete=delta.completeness == endpoint_pb2.COMPLETENESS_COMPLETE,
            )
        self._on_change()

    def _lose(self, why: str) -> None:
        if self._is_connected or not self.attempted.is_set():
            log.warning("controller cannot be watched", controller=self.address, why=why)
        self._is_connected = False
        self._connected.set(0)
        self._directory.lose_controller(self.address)
        self.attempted.set()
