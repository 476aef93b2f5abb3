"""EndpointService: gateways learn which worker serves what, and report what they see fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import structlog

from services.controller.deltas import PendingChanges
from services.controller.metrics import ControllerMetrics
from services.controller.probing import Prober
from services.controller.registry import Change, Registry, Snapshot
from services.controller.settings import ControllerSettings
from services.controller.streams import Ending, first_frame, frame_empty, hold, stopping
from services.controller.translation import delta_message, snapshot_message
from services.controller.validation import check_id, check_protocol_version
from services.mesh import status
from services.mesh.errors import ExhaustedError, ProtocolError
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
            self.ending.close(_lagged())
        self.ending.changed.set()


class EndpointServicer(endpoint_pb2_grpc.EndpointServiceServicer):
    """Where gateways watch."""

    def __init__(
        self,
        settings: ControllerSettings,
        registry: Registry,
        prober: Prober,
        metrics: ControllerMetrics,
        incarnation: str,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._prober = prober
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
            await hold(context, stream, self._read(stream, request_iterator), unread=_lagged)
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
        first = await first_frame(frames, "subscribe", self._settings.first_frame_limit_s)
        check_protocol_version(first.subscribe.protocol_version)
        gateway_id = check_id("subscribe.gateway_id", first.subscribe.gateway_id)
        log.info("gateway watches", gateway_id=gateway_id)
        stream.subscribe()
        async for frame in frames:
            self._take(frame, gateway_id)

    def _take(self, frame: endpoint_pb2.WatchRequest, gateway_id: str) -> None:
        match frame.WhichOneof("frame"):
            case "failure_report":
                self._take_report(frame.failure_report, gateway_id)
            case "subscribe":
                raise ProtocolError(
                    "a second Subscribe came; a stream has one", reason="SUBSCRIBE_REPEATED"
                )
            case _:
                raise frame_empty()

    def _take_report(self, report: endpoint_pb2.FailureReport, gateway_id: str) -> None:
        check_id("failure_report.worker_id", report.worker_id)
        check_id("failure_report.incarnation", report.incarnation)
        error = status.from_status(report.status)
        self._metrics.failure_report(error.reason)
        why = f"gateway {gateway_id} reported {error.reason}"
        self._prober.suspect(report.worker_id, report.incarnation, why)


def _lagged() -> ExhaustedError:
    return ExhaustedError(
        "deltas are read more slowly than they come; watch again for a new snapshot",
        reason="WATCH_LAGGED",
    )
