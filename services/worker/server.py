"""The worker as a process sees it: load, serve, attach, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import REGISTRY, CollectorRegistry

from services.mesh.errors import StartError, UnavailableError
from services.mesh.metrics import MetricsServer
from services.mesh.process import announce_ready
from services.mesh.server import MeshServer
from services.worker import engines
from services.worker.attach.attachment import Attached, Attachment
from services.worker.attach.drain import Drain
from services.worker.attach.identity import Identity, advertised_address
from services.worker.attach.serving_state import ServingState
from services.worker.engines.base import Engine
from services.worker.generate.generate_stream import RETRY_AFTER_S, Serving
from services.worker.generate.live_request import LiveRequests
from services.worker.generate.step_fanout import StepFanout
from services.worker.generate.step_pace import StepPace
from services.worker.generate.step_watch import StepWatch
from services.worker.metrics import WorkerMetrics
from services.worker.servicer import WorkerServicer
from services.worker.settings import WorkerSettings
from tokenmesh.worker.v1 import worker_pb2_grpc

log = structlog.get_logger()

SERVICE = "worker"
SERVICE_NAME = "tokenmesh.worker.v1.WorkerService"

# How long a start waits for the first leases before it says "ready" all the same: a worker serves
# whether or not a controller is there.
FIRST_LEASE_LIMIT_S = 3.0
# How long each part of a shutdown may take, after the grace period.
LEAVE_LIMIT_S = 2.0
ENGINE_STOP_LIMIT_S = 5.0
STREAMS_STOP_LIMIT_S = 1.0


@dataclass(frozen=True)
class RunningWorker:
    """A worker that serves."""

    identity: Identity
    address: str
    engine: Engine
    state: ServingState
    drain: Drain
    attachments: tuple[Attachment, ...]
    steps: asyncio.Task[None]
    """Ends when the engine stops, or raises what broke it."""

    async def wait_until_attached(self, limit_s: float) -> bool:
        """Whether every controller grants a lease within `limit_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                for attachment in self.attachments:
                    await attachment.granted.wait()
                return True
        return False


async def serve(
    settings: WorkerSettings, stop: asyncio.Event, metrics_registry: CollectorRegistry = REGISTRY
) -> None:
    """Loads the engine and serves until `stop` is set or the engine breaks down.

    Raises:
        StartError: the model cannot be loaded, or a port is taken.
        SystemExit: the engine broke down.
    """
    _require_free_port(settings)
    engine = engines.create(settings.engine_name, settings.engine)
    if not await _load(engine, stop):
        return
    metrics_server = MetricsServer(SERVICE, settings.host, settings.metrics_port, metrics_registry)
    try:
        async with running(settings, engine, metrics_registry) as worker:
            await _unless(stop, worker.wait_until_attached(FIRST_LEASE_LIMIT_S))
            announce_ready(settings.ready_file, SERVICE, worker.address, metrics_server.address)
            await _first_of(stop, worker.steps)
            failure = _failure_of(worker.steps)
    finally:
        metrics_server.stop()
    if failure is not None:
        raise SystemExit(f"worker: the {engine.name} engine broke down: {failure}")


@asynccontextmanager
async def running(
    settings: WorkerSettings, engine: Engine, metrics_registry: CollectorRegistry = REGISTRY
) -> AsyncIterator[RunningWorker]:
    """A worker that serves a loaded engine for as long as the context is open.

    Leaving it drains: nothing new is taken, and what runs may go on for the grace period.

    Raises:
        StartError: a port is taken.
    """
    metrics = WorkerMetrics(metrics_registry)
    metrics.watch_engine(engine)
    state = ServingState()
    live_requests = LiveRequests()
    pace = StepPace()
    watch = StepWatch(settings.hung_step_s)
    fanout = StepFanout(engine, live_requests, metrics, pace, watch)
    drain = Drain(
        state,
        live_requests,
        lambda: fanout.fail_all(
            UnavailableError("the worker is stopping", retry_after_s=RETRY_AFTER_S)
        ),
        settings.grace_period_s,
    )
    server = MeshServer(settings.host, settings.port)
    serving = Serving(
        engine,
        state,
        live_requests,
        metrics,
        pace,
        settings.may_bring_template,
        settings.gateway_read_limit_s,
    )
    servicer = WorkerServicer(serving, lambda: identity)
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(servicer, server.grpc)
    await server.start((SERVICE_NAME,))
    identity = _identity(settings, server.port)
    attached = Attached(identity, engine, state, drain, metrics)
    attachments = tuple(Attachment(each, attached) for each in settings.controllers)
    steps = asyncio.create_task(fanout.run())
    leases = [asyncio.create_task(each.run()) for each in attachments]
    try:
        yield RunningWorker(
            identity,
            server.address,
            engine,
            state,
            drain,
            attachments,
            steps,
        )
    finally:
        await server.drain()
        if not steps.done():
            await drain.finish(settings.grace_period_s)
        state.leave()
        await _end(leases, LEAVE_LIMIT_S)
        await _stop_engine(engine)
        await _end([steps], ENGINE_STOP_LIMIT_S)
        servicer.close_streams()
        await server.stop(STREAMS_STOP_LIMIT_S)


def _identity(settings: WorkerSettings, port: int) -> Identity:
    return Identity(
        worker_id=settings.worker_id or f"{socket.gethostname()}-{port}",
        address=settings.advertise_address or advertised_address(settings.host, port),
        speed=settings.speed,
        labels=settings.labels,
    )


def _require_free_port(settings: WorkerSettings) -> None:
    """Notices a taken port before a model is loaded, which may take minutes."""
    if not settings.port:
        return
    host = settings.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, settings.port), family=family).close()
    except OSError as error:
        raise StartError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another "
            "with --host and --port"
        ) from error


async def _load(engine: Engine, stop: asyncio.Event) -> bool:
    """Loads the engine; False when it is told to stop before that is done."""
    log.info("loading", engine=engine.name)
    loading = asyncio.create_task(engine.start())
    await _first_of(stop, loading)
    if loading.done():
        await loading
        log.info("loaded", models=[each.name for each in engine.models])
        return True
    # What loads in a thread cannot be interrupted; the process ends without waiting for it.
    await _end([loading], 0.0)
    return False


async def _unless(stop: asyncio.Event, wait: Coroutine[Any, Any, object]) -> None:
    """Waits, unless it is time to stop."""
    waiting = asyncio.create_task(wait)
    try:
        await _first_of(stop, waiting)
    finally:
        waiting.cancel()


async def _first_of(stop: asyncio.Event, task: asyncio.Task[Any]) -> None:
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((stopped, task), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()


async def _end(tasks: list[asyncio.Task[None]], limit_s: float) -> None:
    """Waits for tasks that are about to end; cancels those that take too long."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=limit_s)
    for task in late:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            log.error("ended badly", exc_info=outcome)


async def _stop_engine(engine: Engine) -> None:
    try:
        async with asyncio.timeout(ENGINE_STOP_LIMIT_S):
            await engine.stop()
    except TimeoutError:
        log.error("the engine did not stop", engine=engine.name, limit_s=ENGINE_STOP_LIMIT_S)


def _failure_of(steps: asyncio.Task[None]) -> str | None:
    """Why the steps ended although nobody stopped the engine."""
    if not steps.done() or steps.cancelled():
        return None
    error = steps.exception()
    return "its steps ended" if error is None else f"{type(error).__name__}: {error}"
