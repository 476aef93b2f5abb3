"""Controllers die, freeze, are cut off and come back, one by one and all at once, under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.gateway.discovery.health import DISCOVERY_SERVICE
from services.mesh.channels import open_channel
from tests.chaos.clients import Clients, ask_each
from tests.chaos.faults import Fault, FaultKind, Service
from tests.chaos.layout import SCRIPTED_MODEL, Layout
from tests.chaos.mesh import Mesh, running
from tests.chaos.questions import questions
from tests.chaos.verdict import Verdict, judge, transcript_of
from tokenmesh.controller.v1 import admin_pb2, admin_pb2_grpc, registry_pb2

LAYOUT = Layout(gateways=1, scripted_workers=2, token_interval_ms=5, prefill_ms=0)
TOKENS = 40
LIMIT_S = 60.0
CONTROLLERS = ("controller-1", "controller-2")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def under_load(mesh: Mesh) -> AsyncIterator[None]:
    """Clients that must get the right answer to everything they ask while the block runs."""
    asked = questions(SCRIPTED_MODEL, TOKENS)
    undisturbed = {
        each.question.name: transcript_of(each)
        for each in await ask_each(mesh.port, asked, LIMIT_S)
    }
    clients = Clients(mesh.port, asked, count=8, seed=1, limit_s=LIMIT_S)
    running_clients = asyncio.create_task(clients.run(spread_s=0.2))
    try:
        yield
    finally:
        clients.stop()
        await running_clients
    judged = [judge(exchange, undisturbed, [], {}) for exchange in clients.exchanges]
    assert judged
    verdict = Verdict(judged, mesh.complaints)
    assert verdict.is_clean, [each.why for each in judged if each.why]


async def health(mesh: Mesh, service: str) -> Any:
    async with open_channel(mesh.places["gateway-1"].address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def until_health(mesh: Mesh, service: str, wanted: Any) -> None:
    async with asyncio.timeout(LIMIT_S):
        while await health(mesh, service) != wanted:
            await asyncio.sleep(0.1)


def watched(mesh: Mesh) -> int:
    """How many controllers the gateway says that it watches."""
    told = mesh.metrics(Service.GATEWAY)["gateway-1"].splitlines()
    name = "tokenmesh_gateway_controller_connected{"
    return sum(float(line.rpartition(" ")[2]) == 1 for line in told if line.startswith(name))


async def states(mesh: Mesh, controller: str) -> dict[str, str]:
    """The workers that a controller knows, and their states."""
    async with open_channel(mesh.places[controller].address) as channel:
        stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
        listed = await stub.ListWorkers(admin_pb2.ListWorkersRequest(), wait_for_ready=True)
    name = registry_pb2.WorkerState.Name
    return {w.worker_id: name(w.state).removeprefix("WORKER_STATE_") for w in listed.workers}


async def until_states(mesh: Mesh, controller: str, wanted: dict[str, str]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while await states(mesh, controller) != wanted:
            await asyncio.sleep(0.05)


BOTH_SERVE = {"scripted-1": "SERVING", "scripted-2": "SERVING"}


@pytest.mark.slow
async def test_no_request_is_lost_with_controllers(tmp_path: Path) -> None:
    async with running(LAYOUT, tmp_path, wants_cuts=True) as mesh:
        assert watched(mesh) == 2
        kinds = [kind for kind in FaultKind if mesh.can_cut or kind is not FaultKind.CUT]
        async with under_load(mesh):
            for kind, name in zip(kinds, CONTROLLERS * 2, strict=False):
                await mesh.suffer(Fault(0, kind, name, 0.5))
                await until_states(mesh, name, BOTH_SERVE)
                assert await health(mesh, DISCOVERY_SERVICE) == SERVING
            await until_health(mesh, DISCOVERY_SERVICE, SERVING)

            async with asyncio.TaskGroup() as tasks:
                for name in CONTROLLERS:
                    tasks.create_task(mesh.suffer(Fault(0, FaultKind.KILL, name, 4.0)))
                await until_health(mesh, DISCOVERY_SERVICE, NOT_SERVING)
                assert watched(mesh) == 0
                assert await health(mesh, "") == SERVING, "it serves on from what it knows"
            for name in CONTROLLERS:
                await until_states(mesh, name, BOTH_SERVE)
            await until_health(mesh, DISCOVERY_SERVICE, SERVING)


@pytest.mark.slow
async def test_any_controller_drains_and_resumes(tmp_path: Path) -> None:
    async with running(LAYOUT, tmp_path, wants_cuts=False) as mesh, under_load(mesh):
        for name, other in (CONTROLLERS, CONTROLLERS[::-1]):
            async with open_channel(mesh.places[name].address) as channel:
                stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
                await stub.DrainWorker(admin_pb2.DrainWorkerRequest(worker_id="scripted-1"))
            await until_states(mesh, other, {**BOTH_SERVE, "scripted-1": "DRAINING"})
            async with open_channel(mesh.places[other].address) as channel:
                stub = admin_pb2_grpc.AdminServiceStub(channel)
                await stub.ResumeWorker(admin_pb2.ResumeWorkerRequest(worker_id="scripted-1"))
            await until_states(mesh, name, BOTH_SERVE)
