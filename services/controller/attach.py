"""RegistryService: workers attach, stay by heartbeats, and leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import structlog
from google.protobuf import duration_pb2

from services.controller.attachment import AttachStream
from services.controller.dialling import dial
from services.controller.keeper import LeaseKeeper
from services.controller.leases import Grant, Lease
from services.controller.metrics import ControllerMetrics
from services.controller.probing import Prober
from services.controller.settings import ControllerSettings
from services.controller.streams import first_frame, frame_empty, hold, stopping
from services.controller.suspicion import Dialled
from services.controller.translation import ATTACHMENTS
from services.controller.validation import (
    read_cached_prefixes,
    read_hello,
    read_load,
    read_models,
    read_state,
)
from services.mesh import status
from services.mesh.errors import (
    ExhaustedError,
    InvalidRequestError,
    MeshError,
    ProtocolError,
    UnavailableError,
)
from tokenmesh.controller.v1 import registry_pb2, registry_pb2_grpc

log = structlog.get_logger()

MAX_REASON_CHARACTERS = 256
# While a worker attaches anew, its broken stream may not have ended yet.
STREAMS_PER_WORKER = 2


class RegistryServicer(registry_pb2_grpc.RegistryServiceServicer):
    """Where workers register."""

    def __init__(
        self,
        settings: ControllerSettings,
        keeper: LeaseKeeper,
        prober: Prober,
        metrics: ControllerMetrics,
    ) -> None:
        self._settings = settings
        self._keeper = keeper
        self._prober = prober
        self._metrics = metrics
        self._open: set[AttachStream] = set()
        self._dials = asyncio.Semaphore(settings.max_dials)
        self._stopping = False

    async def Attach(
        self, request_iterator: AsyncIterator[registry_pb2.AttachRequest], context: Any
    ) -> AsyncIterator[registry_pb2.AttachResponse]:
        """Holds one worker's lease. What it answers is written by `hold`."""
        if self._stopping:
            raise stopping()
        if len(self._open) >= STREAMS_PER_WORKER * self._settings.max_workers:
            raise ExhaustedError(
                f"{len(self._open)} Attach streams are open, which is the most that this "
                "controller takes; raise --max-workers",
                reason="WORKERS_EXHAUSTED",
            )
        stream = AttachStream()
        self._open.add(stream)
        try:
            await hold(
                context, stream.outgoing, self._read(stream, request_iterator, context.peer())
            )
        finally:
            self._open.discard(stream)
            lease = self._keeper.detach(stream)
            if lease is not None and not self._stopping:
                self._prober.suspect(lease.worker_id, lease.incarnation, "its stream broke")
        return
        yield

    def stop(self) -> None:
        """Ends every stream, and those to come."""
        self._stopping = True
        for stream in tuple(self._open):
            stream.close(stopping())

    async def _read(
        self,
        stream: AttachStream,
        frames: AsyncIterator[registry_pb2.AttachRequest],
        peer: str,
    ) -> None:
        try:
            lease = await self._admit(stream, frames)
        except MeshError as error:
            self._metrics.lease_event("refused")
            log.warning("attach refused", peer=peer, reason=error.reason, error=error.message)
            raise
        async for frame in frames:
            self._take(stream, lease, frame)
        stream.close()

    async def _admit(
        self, stream: AttachStream, frames: AsyncIterator[registry_pb2.AttachRequest]
    ) -> Lease:
        frame = await first_frame(frames, "hello", self._settings.first_frame_limit_s)
        worker = read_hello(frame.hello, wall_clock_s=time.time())
        if frame.lease_id:
            raise InvalidRequestError(
                "lease_id is set; it must be empty in a Hello, which asks for a lease",
                reason="HELLO_MALFORMED",
                field="lease_id",
            )
        hello_number = self._keeper.next_hello_number()
        await self._check_address(worker.address)
        grant = self._keeper.grant(stream, worker, hello_number)
        stream.outgoing.put(self._granted(grant))
        return grant.lease

    async def _check_address(self, address: str) -> None:
        limit_s = self._settings.dial_limit_s
        try:
            async with asyncio.timeout(self._settings.first_frame_limit_s):
                await self._dials.acquire()
        except TimeoutError:
            raise UnavailableError(
                "too many workers attach at once; try again",
                reason="DIALS_EXHAUSTED",
                retry_after_s=limit_s,
            ) from None
        try:
            dialled = await dial(address, limit_s)
        finally:
            self._dials.release()
        if dialled is not Dialled.ANSWERED:
            how = "refused" if dialled is Dialled.REFUSED else f"unanswered for {limit_s:g} s"
            raise ProtocolError(
                f"hello.address {address!r} cannot be dialled: {how}; it must be an address at "
                "which gateways and controllers reach this worker's gRPC server",
                reason="ADDRESS_UNREACHABLE",
                field="hello.address",
            )

    def _granted(self, grant: Grant) -> registry_pb2.AttachResponse:
        ttl = duration_pb2.Duration()
        ttl.FromMilliseconds(round(self._settings.lease_ttl_s * 1000))
        interval = duration_pb2.Duration()
        interval.FromMilliseconds(round(self._settings.heartbeat_interval_s * 1000))
        return registry_pb2.AttachResponse(
            lease_id=grant.lease.lease_id,
            lease_granted=registry_pb2.LeaseGranted(
                ttl=ttl,
                heartbeat_interval=interval,
                attachment=ATTACHMENTS[grant.attachment],
                controller_id=self._settings.controller_id,
            ),
        )

    def _take(self, stream: AttachStream, lease: Lease, frame: registry_pb2.AttachRequest) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "hello":
            raise ProtocolError(
                "a second Hello came; a stream has one, so attach anew", reason="HELLO_REPEATED"
            )
        if kind is None:
            raise frame_empty()
        if frame.lease_id != lease.lease_id:
            raise ProtocolError(
                f"lease_id is not that of this stream, which is {lease.lease_id!r}",
                reason="LEASE_MISMATCH",
                field="lease_id",
            )
        match kind:
            case "heartbeat":
                self._renew(stream, lease, frame.heartbeat)
            case "models_changed":
                models = read_models("models_changed.models", frame.models_changed.models)
                self._keeper.set_models(lease, models)
            case "command_outcome":
                outcome = frame.command_outcome
                error = status.from_status(outcome.status) if outcome.status.code else None
                if not stream.settle(outcome.command_id, error):
                    log.info("nobody waits for this outcome", worker_id=lease.worker_id)
            case "leaving":
                self._keeper.leave(lease, frame.leaving.reason[:MAX_REASON_CHARACTERS])
                stream.close()

    def _renew(self, stream: AttachStream, lease: Lease, heartbeat: registry_pb2.Heartbeat) -> None:
        self._keeper.renew(
            lease,
            state=read_state("heartbeat.state", heartbeat.state),
            load=read_load(heartbeat.load),
            cached_prefixes=read_cached_prefixes(heartbeat.cached_prefixes),
        )
        stream.outgoing.put(
            registry_pb2.AttachResponse(
                lease_id=lease.lease_id,
                lease_renewed=registry_pb2.LeaseRenewed(number=heartbeat.number),
            )
        )
