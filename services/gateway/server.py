"""The gateway as a process sees it: startup, serve, shutdown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import structlog
from prometheus_client import REGISTRY, CollectorRegistry

from services.gateway.api.chat_service import ChatServicer
from services.gateway.api.completion_service import CompletionServicer
from services.gateway.api.embedding_service import EmbeddingServicer
from services.gateway.api.forwarding import Forwarding
from services.gateway.api.model_service import ModelServicer
from services.gateway.api.tokenizing import Tokenizing
from services.gateway.discovery import health
from services.gateway.discovery.directory import Directory
from services.gateway.discovery.watching import ControllerWatch
from services.gateway.keys.gate import Gate
from services.gateway.keys.metrics import KeyMetrics
from services.gateway.links.dispatch import Dispatch
from services.gateway.links.worker_link import WorkerLink
from services.gateway.links.worker_links import WorkerLinks
from services.gateway.metrics import GatewayMetrics
from services.gateway.openai.responses.assembly import ResponseParts
from services.gateway.openai.services import add_openai_services
from services.gateway.relay.admission import Admission
from services.gateway.relay.background import BackgroundTasks
from services.gateway.relay.encode_relay import EncodeLimits, EncodeRelay
from services.gateway.relay.quarantine import Quarantine
from services.gateway.relay.relay import Relay
from services.gateway.relay.waiting_room import WaitingLimits, WaitingRoom
from services.gateway.routing import policy_maker
from services.gateway.settings import GatewaySettings
from services.mesh.errors import MeshError
from services.mesh.metrics import MetricsServer
from services.mesh.process import announce_ready
from services.mesh.server import MeshServer
from tokenmesh.gateway.v1 import (
    chat_pb2_grpc,
    completion_pb2_grpc,
    embedding_pb2_grpc,
    model_pb2_grpc,
)

log = structlog.get_logger()

SERVICE = "gateway"
SERVICE_NAMES = (
    "tokenmesh.gateway.v1.ChatService",
    "tokenmesh.gateway.v1.CompletionService",
    "tokenmesh.gateway.v1.EmbeddingService",
    "tokenmesh.gateway.v1.ModelService",
)
SWEEP_INTERVAL_S = 1.0


@dataclass(frozen=True)
class RunningGateway:
    """A gateway that serves."""

    address: str
    metrics_address: str


@asynccontextmanager
async def running(
    settings: GatewaySettings, metrics_registry: CollectorRegistry = REGISTRY
) -> AsyncIterator[RunningGateway]:
    """A gateway that serves for as long as the context is open.

    Raises:
        StartError: a port is taken, or the file of keys or that of responses cannot be used.
    """
    metrics_server = MetricsServer(SERVICE, settings.host, settings.metrics_port, metrics_registry)
    try:
        async with BackgroundTasks() as tasks:
            mesh = _Mesh(settings, GatewayMetrics(metrics_registry), tasks)
            gate = Gate(
                settings.api_keys,
                settings.api_keys_file,
                directory=mesh.directory,
                metrics=KeyMetrics(metrics_registry),
                tasks=tasks,
            )
            await mesh.first_word(settings.first_watch_limit_s)
            server = MeshServer(
                settings.host,
                settings.port,
                reuse_port=settings.reuse_port,
                interceptors=gate.interceptors,
            )
            names, responses = _add_services(server, settings, mesh, gate, metrics_registry)
            try:
                # The other services are for Envoy: clients have no route to them.
                await server.start(names, reflected=SERVICE_NAMES)
                tasks.begin(health.tell(mesh.watches, server.set_health))
                tasks.begin(responses.background.run())
                yield RunningGateway(server.address, metrics_server.address)
            finally:
                await asyncio.gather(
                    server.stop(settings.grace_period_s),
                    responses.background.stop(settings.grace_period_s),
                )
                await responses.store.close()
    finally:
        metrics_server.stop()


async def serve(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set, then gives running requests the grace period.

    Raises:
        StartError: a port is taken.
    """
    async with running(settings) as gateway:
        announce_ready(settings.ready_file, SERVICE, gateway.address, gateway.metrics_address)
        await stop.wait()


class _Mesh:
    """What the gateway knows of the mesh, kept current."""

    def __init__(
        self, settings: GatewaySettings, metrics: GatewayMetrics, tasks: BackgroundTasks
    ) -> None:
        self.metrics = metrics
        self.directory = Directory(clock_s=time.monotonic, forget_after_s=settings.forget_after_s)
        self.links = WorkerLinks(
            tasks, on_trip=self._report, tuning=settings.breaker, hung_after_s=settings.hung_after_s
        )
        self.watches = [
            ControllerWatch(
                address,
                settings.gateway_id,
                self.directory,
                metrics,
                on_change=self._follow,
            )
            for address in settings.controllers
        ]
        self.on_change: Callable[[], None] = lambda: None
        """Called when there may be more room at the workers than before."""
        metrics.watch_workers(self._count)
        for watch in self.watches:
            tasks.begin(watch.run())
        tasks.begin(self._sweep())

    async def first_word(self, limit_s: float) -> None:
        """Waits until each controller was asked once, but no longer than `limit_s`."""
        try:
            async with asyncio.timeout(limit_s):
                for watch in self.watches:
                    await watch.attempted.wait()
        except TimeoutError:
            log.warning("serving before every controller has answered")

    async def _sweep(self) -> None:
        """Drops what is stale, now and then, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self.directory.forget_stale()
            self._follow()

    def _follow(self) -> None:
        self.links.follow(self.directory.workers())
        self.on_change()

    def _report(self, link: WorkerLink, error: MeshError) -> None:
        self.metrics.worker_losses.labels(error.reason).inc()
        for watch in self.watches:
            watch.report(link.worker_id, link.incarnation, error)

    def _count(self, state: str) -> int:
        states = [_state_of(link) for link in self.links]
        return states.count(state)


def _state_of(link: WorkerLink) -> str:
    if link.is_broken:
        return "broken"
    return "draining" if link.is_draining else "serving"


def _add_services(
    server: MeshServer,
    settings: GatewaySettings,
    mesh: _Mesh,
    gate: Gate,
    metrics_registry: CollectorRegistry,
) -> tuple[tuple[str, ...], ResponseParts]:
    """Adds every service to the server. Returns their full names, and what runs beside them."""
    random = Random()
    dispatch = Dispatch(
        mesh.directory,
        mesh.links,
        policy_name=settings.routing_policy,
        make_policy=policy_maker(
            settings.routing_policy, settings.affinity, mesh.metrics.count_affinity
        ),
        metrics=mesh.metrics,
        random=random,
    )
    waiting_room = WaitingRoom(
        WaitingLimits(settings.max_waiting, settings.max_wait_s),
        free_places=dispatch.free_places,
        metrics=mesh.metrics,
    )
    mesh.on_change = waiting_room.look_again
    admission = Admission(
        settings.max_requests,
        limit_per_caller=settings.max_requests_per_caller or None,
        retry_after_s=waiting_room.retry_after_s,
        on_refuse=mesh.metrics.count_reject,
    )
    relay = Relay(
        dispatch=dispatch,
        admission=admission,
        waiting_room=waiting_room,
        limits=settings.limits(),
        quarantine=Quarantine(
            settings.quarantine_s, time.monotonic, mesh.metrics.quarantine_refusals.inc
        ),
        request_timeout_s=settings.request_timeout_s,
        metrics=mesh.metrics,
        random=random,
    )
    tokenizing = Tokenizing(Forwarding(dispatch, admission, max_attempts=settings.max_attempts))
    encode_relay = EncodeRelay(
        dispatch=dispatch,
        admission=admission,
        waiting_room=waiting_room,
        limits=EncodeLimits(settings.max_attempts, settings.poison_deaths),
        request_timeout_s=settings.request_timeout_s,
        metrics=mesh.metrics,
    )
    conversations = Admission(settings.max_conversations, "conversations")
    chat_pb2_grpc.add_ChatServiceServicer_to_server(
        ChatServicer(relay, conversations, gate), server.grpc
    )
    completion_pb2_grpc.add_CompletionServiceServicer_to_server(
        CompletionServicer(relay), server.grpc
    )
    embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(
        EmbeddingServicer(encode_relay), server.grpc
    )
    model_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelServicer(mesh.directory, tokenizing), server.grpc
    )
    responses = ResponseParts(
        settings.responses, relay, mesh.directory, tokenizing, metrics_registry
    )
    openai_names = add_openai_services(
        server.grpc,
        relay,
        mesh.directory,
        tokenizing,
        responses.servicer,
        encode_relay=encode_relay,
    )
    return (*SERVICE_NAMES, *openai_names), responses
