"""The gRPC server that every service runs: health, reflection, channelz, typed errors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import structlog
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.mesh.channels import KEEPALIVE_INTERVAL_MS, MAX_MESSAGE_BYTES
from services.mesh.errors import StartError
from services.mesh.interceptors import ErrorInterceptor

log = structlog.get_logger()

# A client host that vanishes is noticed after both together. Clients ping more often and notice
# their servers sooner: this only frees what the server still holds for them.
SERVER_KEEPALIVE_INTERVAL_MS = 10_000
SERVER_KEEPALIVE_TIMEOUT_MS = 10_000

# Calls that have come and that no handler has begun. By default gRPC cancels some beyond 1,000,
# without a word why: admission refuses with a reason instead. As many as Envoy lets through.
MAX_PENDING_CALLS = 16_384

# Of one call. As much as Envoy lets through, so that a handler says what is wrong with it.
MAX_METADATA_BYTES = 65_536

# Beyond the grace period. What a handler leaves undone by then ends with the process.
STOP_LIMIT_S = 5.0

CHANNELZ_SERVICE = "grpc.channelz.v1.Channelz"

UNANSWERED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)
"""Codes that a client makes up by itself when no answer comes."""


class MeshServer:
    """A grpc.aio server with what every service of the mesh offers beside its own RPCs.

    The health of the whole server is the service name "". It is NOT_SERVING until `start` has
    returned and again from `drain` on.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        reuse_port: bool = False,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        """Prepares a server on `host:port`; port 0 takes a free one.

        With `reuse_port`, several processes may share the port and the kernel spreads connections.
        `interceptors` see each call after the request id is bound; what they raise is typed.
        """
        self._host = host
        self._wanted_port = port
        self.port = 0
        self.grpc = grpc.aio.server(
            interceptors=[ErrorInterceptor(), *interceptors],
            options=(
                ("grpc.so_reuseport", int(reuse_port)),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.keepalive_time_ms", SERVER_KEEPALIVE_INTERVAL_MS),
                ("grpc.keepalive_timeout_ms", SERVER_KEEPALIVE_TIMEOUT_MS),
                ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_INTERVAL_MS // 2),
                ("grpc.http2.max_ping_strikes", 0),
                ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
                ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
                ("grpc.enable_channelz", 1),
            ),
        )
        self._health = health.aio.HealthServicer()

    @property
    def address(self) -> str:
        """ "host:port" that the server listens on, once started."""
        return f"{self._host}:{self.port}"

    async def start(
        self, service_names: Sequence[str], *, reflected: Sequence[str] | None = None
    ) -> None:
        """Listens. `service_names` are the full names of the services added to `grpc`; reflection
        lists those that are `reflected`, beside health and itself: by default all, and channelz.

        Raises:
            StartError: the address cannot be bound.
        """
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        channelz.add_channelz_servicer(self.grpc)
        if reflected is None:
            reflected = (*service_names, CHANNELZ_SERVICE)
        reflection.enable_server_reflection(
            (*reflected, health.SERVICE_NAME, reflection.SERVICE_NAME), self.grpc
        )
        try:
            self.port = self.grpc.add_insecure_port(f"{self._host}:{self._wanted_port}")
        except RuntimeError as error:
            raise StartError(
                f"cannot listen on {self._host}:{self._wanted_port}: the port is taken or the "
                "address is not this machine's; choose another with --port"
            ) from error
        await self.grpc.start()
        for name in ("", *service_names):
            await self.set_health(name, serving=True)
        log.info("listening", address=self.address)

    async def set_health(self, service_name: str, *, serving: bool) -> None:
        """Sets what grpc.health.v1 answers for one service; "" is the whole server."""
        kind = health_pb2.HealthCheckResponse
        await self._health.set(service_name, kind.SERVING if serving else kind.NOT_SERVING)

    async def drain(self) -> None:
        """Answers NOT_SERVING from now on, while calls go on."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Takes no new call, gives running ones `grace_s` seconds, then ends them."""
        await self.drain()
        try:
            async with asyncio.timeout(grace_s + STOP_LIMIT_S):
                await self.grpc.stop(grace_s)
        except TimeoutError:
            log.warning("the server did not end in time", address=self.address)


async def is_answering(channel: grpc.aio.Channel, timeout_s: float) -> bool:
    """Whether the server behind the channel answers within `timeout_s` seconds, whatever it says.

    The answer comes from the server's event loop, not from gRPC's own threads.
    """
    stub: Any = health_pb2_grpc.HealthStub(channel)
    try:
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        return error.code() not in UNANSWERED
    return True


async def is_serving(channel: grpc.aio.Channel, timeout_s: float) -> bool:
    """Whether the server behind the channel answers SERVING within `timeout_s` seconds."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
