"""EndpointService: gateways learn which worker serves what, and report what they see fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import structlog

from services.controller.deltas import PendingChanges
from services.controller.hello import check_id, check_protocol_version
from services.controller.metrics import ControllerMetrics
from services.controller.registry import Change, Registry, Snapshot
from services.controller.settings import ControllerSettings
from services.controller.streams import Ending, hold, stopping
from services.controller.translation import delta_message, snapshot_message
from services.mesh.errors import (
    DeadlineError,
    ExhaustedError,
    InvalidRequestError,
    ProtocolError,
)
from tokenmesh.controller.v1 import endpoint_pb2, endpoint_pb2_grpc

log = structlog.get_logger()


class WatchStream:
    """What goes down one Watch stream: a snapshot once it has subscribed, then deltas."""

    def __init__(self, registry: Registry, settings: ControllerSettings, incarnation: str) -> None:
        self.ending = Ending()
        self.subscribed = False
        self._registry = registry
        self._settings = settings
        self._incarnation = incarnation
        self._snapshot: Snapshot | None = None
        self._pending = PendingChanges(settings.max_pending_changes)

    def subscribe(self) -> None:
        """Begins with what is known now."""
        self.subscribed = True
        self._snapshot = self._registry.watch(self, self._on_change)
        self.ending.changed.set()

    def close(self) -> None:
        """Takes no further change."""
        self._registry.unwatch(self)

    async def __aiter__(self) -> AsyncIterator[endpoint_pb2.WatchResponse]:
        while True:
            await self.ending.changed.wait()
            self.ending.changed.clear()
            if self.ending.closed:
                return
            if self._snapshot is not None:
                snapshot, self._snapshot = self._snapshot, None
                yield snapshot_message(
                    snapshot,
                    controller_id=self._settings.controller_id,
                    controller_incarnation=self._incarnation,
                )
            delta = self._pending.take()
            if delta is not None:
                yield delta_message(delta)

    def _on_change(self, change: Change) -> None:
        self._pending.add(change)
        if self._pending.lagged:
            self._registry.unwatch(self)
            self.ending.close(
                ExhaustedError(
                    f"more than {self._pending.limit} changes wait to be read; watch again for a "
                    "new snapshot",
                    reason="WATCH_LAGGED",
                )
            )
        self.ending.changed.set()


class EndpointServicer(endpoint_pb2_grpc.EndpointServiceServicer):
    """Where gateways watch."""

    def __init__(
        self,
        settings: ControllerSettings,
        registry: Registry,
        metrics: ControllerMetrics,
        incarnation: str,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._metrics = metrics
        self._incarnation = incarnation
        self._open: set[WatchStream] = set()
        self._stopping = False

    async def Watch(
        self, request_iterator: AsyncIterator[endpoint_pb2.WatchRequest], context: Any
    ) -> AsyncIterator[endpoint_pb2.WatchResponse]:
        """Serves one gateway. What it answers is written by `hold`."""
        if self._stopping:
            raise stopping()
        if len(self._open) >= self._settings.max_watchers:
            raise ExhaustedError(
                f"{self._settings.max_watchers} gateways watch, which is the most that this "
                "controller takes; raise --max-watchers",
                reason="WATCHERS_EXHAUSTED",
            )
        stream = WatchStream(self._registry, self._settings, self._incarnation)
        self._open.add(stream)
        self._metrics.set_watchers(len(self._open))
        try:
            await hold(context, stream, self._read(stream, request_iterator))
        finally:
            stream.close()
            self._open.discard(stream)
            self._metrics.set_watchers(len(self._open))
        return
        yield

    def stop(self) -> None:
        """Ends every stream, and those to come."""
        self._stopping = True
        for stream in tuple(self._open):
            stream.ending.close(stopping())

    async def _read(
        self, stream: WatchStream, frames: AsyncIterator[endpoint_pb2.WatchRequest]
    ) -> None:
        limit_s = self._settings.first_frame_limit_s
        try:
            async with asyncio.timeout(limit_s):
                first = await anext(frames, None)
        except TimeoutError:
            raise DeadlineError(
                f"no Subscribe came within {limit_s:g} s", reason="SUBSCRIBE_EXPECTED"
            ) from None
        kind = first.WhichOneof("frame") if first is not None else None
        if first is None or kind != "subscribe":
            raise ProtocolError(
                f"the first frame must be a Subscribe; got {kind or 'none'}",
                reason="SUBSCRIBE_EXPECTED",
            )
        check_protocol_version(first.subscribe.protocol_version)
        gateway_id = check_id("subscribe.gateway_id", first.subscribe.gateway_id)
        log.info("gateway watches", gateway_id=gateway_id)
        stream.subscribe()
        async for frame in frames:
            self._take(frame, gateway_id)

    def _take(self, frame: endpoint_pb2.WatchRequest, gateway_id: str) -> None:
        match frame.WhichOneof("frame"):
            case "failure_report":
                report = frame.failure_report
                log.warning("failure reported", gateway_id=gateway_id, worker_id=report.worker_id)
            case "subscribe":
                raise ProtocolError(
                    "a second Subscribe came; a stream has one", reason="SUBSCRIBE_REPEATED"
                )
            case _:
                raise InvalidRequestError(
                    "the frame is empty, or of a kind that this controller does not know",
                    reason="FRAME_EMPTY",
                    field="frame",
                )
