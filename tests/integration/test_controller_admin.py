"""AdminService over real gRPC: lists, and commands that reach workers on their Attach streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import code_pb2, status_pb2

from services.controller.settings import ControllerSettings
from services.mesh.errors import MeshError
from services.mesh.status import from_rpc_error
from tests.fakes.controller_peers import AttachPeer, hello, reachable_address
from tests.integration.controllers import Mesh, controller
from tokenmesh.controller.v1 import admin_pb2, endpoint_pb2, registry_pb2
from tokenmesh.mesh.v1 import model_pb2

LONG_LEASE = ControllerSettings(port=0, lease_ttl_s=600, heartbeat_interval_s=200)
SERVING = registry_pb2.WORKER_STATE_SERVING
DRAINING = registry_pb2.WORKER_STATE_DRAINING


@asynccontextmanager
async def mesh_of_one(
    settings: ControllerSettings = LONG_LEASE,
) -> AsyncIterator[tuple[Mesh, AttachPeer]]:
    """A controller with one worker, "w", attached."""
    async with controller(settings) as mesh, reachable_address() as address:
        worker = mesh.attach()
        await worker.attach(hello(address))
        yield mesh, worker


async def answered(
    call: Coroutine[Any, Any, Any],
    worker: AttachPeer,
    answer: Callable[[registry_pb2.AttachResponse], Coroutine[Any, Any, None]],
) -> Any:
    """The operator's answer, and the command that the worker saw and answered."""
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(call)
        command = await worker.read()
        await answer(command)
    return asking.result(), command


async def call_failure(call: Any) -> MeshError:
    """What a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def ask(call: Any) -> Any:
    """A call as a coroutine."""
    return await call


async def test_drain_and_resume_reach_the_worker_and_the_watch() -> None:
    async with mesh_of_one() as (mesh, worker):
        gateway = await mesh.watch()

        request = admin_pb2.DrainWorkerRequest(
            worker_id="w", grace_period=duration_pb2.Duration(seconds=3)
        )
        response, command = await answered(
            ask(mesh.admin.DrainWorker(request)),
            worker,
            lambda command: worker.settle(command.drain.command_id),
        )
        assert command.drain.command_id
        assert command.drain.grace_period.seconds == 3
        assert response.worker.state == DRAINING
        await gateway.until(lambda: gateway.workers["w"].state == DRAINING)

        response, command = await answered(
            ask(mesh.admin.ResumeWorker(admin_pb2.ResumeWorkerRequest(worker_id="w"))),
            worker,
            lambda command: worker.settle(command.resume.command_id),
        )
        assert response.worker.state == SERVING
        await gateway.until(lambda: gateway.workers["w"].state == SERVING)


async def test_a_drain_without_grace_period_leaves_it_to_the_worker() -> None:
    async with mesh_of_one() as (mesh, worker):
        _, command = await answered(
            ask(mesh.admin.DrainWorker(admin_pb2.DrainWorkerRequest(worker_id="w"))),
            worker,
            lambda command: worker.settle(command.drain.command_id),
        )
        assert not command.drain.HasField("grace_period")


async def test_draining_the_draining_and_resuming_the_serving_ask_nothing() -> None:
    async with mesh_of_one() as (mesh, worker):
        resumed = await mesh.admin.ResumeWorker(admin_pb2.ResumeWorkerRequest(worker_id="w"))
        assert resumed.worker.state == SERVING
        await worker.beat(state=DRAINING)
        drained = await mesh.admin.DrainWorker(admin_pb2.DrainWorkerRequest(worker_id="w"))
        assert drained.worker.state == DRAINING
        # The next frame is the heartbeat's answer: no command came before it.
        await worker.beat(state=DRAINING)


async def test_the_workers_error_reaches_the_operator() -> None:
    async with mesh_of_one() as (mesh, worker):
        refusal = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message="not now")

        async def drain_refused() -> MeshError:
            call = mesh.admin.DrainWorker(admin_pb2.DrainWorkerRequest(worker_id="w"))
            return await call_failure(call)

        error, _ = await answered(
            drain_refused(),
            worker,
            lambda command: worker.settle(command.drain.command_id, refusal),
        )
        assert (error.code, error.message) == ("FAILED_PRECONDITION", "not now")
        assert (await mesh.workers())["w"].state == SERVING


async def test_a_worker_that_does_not_answer() -> None:
    settings = ControllerSettings(
        port=0, lease_ttl_s=600, heartbeat_interval_s=200, command_limit_s=0.1
    )
    async with mesh_of_one(settings) as (mesh, worker):
        error = await call_failure(
            mesh.admin.DrainWorker(admin_pb2.DrainWorkerRequest(worker_id="w"))
        )
        assert (error.code, error.reason) == ("DEADLINE_EXCEEDED", "COMMAND_UNANSWERED")
        late = await worker.read()
        await worker.settle(late.drain.command_id)
        await worker.beat()


async def test_a_worker_whose_stream_breaks_before_it_answers() -> None:
    async with mesh_of_one() as (mesh, worker):

        async def drain_lost() -> MeshError:
            call = mesh.admin.DrainWorker(admin_pb2.DrainWorkerRequest(worker_id="w"))
            return await call_failure(call)

        async def break_off(command: registry_pb2.AttachResponse) -> None:
            worker.cancel()

        error, _ = await answered(drain_lost(), worker, break_off)
        assert (error.code, error.reason) == ("UNAVAILABLE", "WORKER_LOST")
        assert error.retry_after_s is not None


async def test_a_worker_whose_stream_is_broken_just_now() -> None:
    async with mesh_of_one() as (mesh, worker):
        await worker.half_close()
        await worker.end()
        error = await call_failure(
            mesh.admin.DrainWorker(admin_pb2.DrainWorkerRequest(worker_id="w"))
        )
        assert (error.code, error.reason) == ("UNAVAILABLE", "WORKER_LOST")


async def test_commands_for_one_worker_are_bounded() -> None:
    async with mesh_of_one() as (mesh, _):
        request = admin_pb2.DrainWorkerRequest(worker_id="w")
        waiting = [mesh.admin.DrainWorker(request) for _ in range(20)]
        done, _ = await asyncio.wait(
            [asyncio.create_task(call_failure(call)) for call in waiting],
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert {task.result().reason for task in done} == {"COMMANDS_EXHAUSTED"}
        for call in waiting:
            call.cancel()


async def test_adapters_are_loaded_and_unloaded() -> None:
    async with mesh_of_one() as (mesh, worker):

        async def loaded(command: registry_pb2.AttachResponse) -> None:
            adapter = command.load_adapter.adapter
            model = model_pb2.Model(name=command.load_adapter.model, adapters=[adapter])
            await worker.send(models_changed=registry_pb2.ModelsChanged(models=[model]))
            await worker.settle(command.load_adapter.command_id)

        adapter = model_pb2.Adapter(name="m-sql", source="hub/m-sql", rank=8)
        load = admin_pb2.LoadAdapterRequest(worker_id="w", model="m", adapter=adapter)
        response, _ = await answered(ask(mesh.admin.LoadAdapter(load)), worker, loaded)
        assert response.worker.models[0].adapters[0] == adapter
        assert set(await mesh.workers("m-sql")) == {"w"}

        async def unloaded(command: registry_pb2.AttachResponse) -> None:
            assert command.unload_adapter.adapter == "m-sql"
            model = model_pb2.Model(name=command.unload_adapter.model)
            await worker.send(models_changed=registry_pb2.ModelsChanged(models=[model]))
            await worker.settle(command.unload_adapter.command_id)

        unload = admin_pb2.UnloadAdapterRequest(worker_id="w", model="m", adapter="m-sql")
        response, _ = await answered(ask(mesh.admin.UnloadAdapter(unload)), worker, unloaded)
        assert not response.worker.models[0].adapters
        assert await mesh.workers("m-sql") == {}


Call = Callable[[Mesh], Any]

WRONG_REQUESTS: dict[str, tuple[Call, str, str, str | None]] = {
    "drain nobody": (
        lambda mesh: mesh.admin.DrainWorker(admin_pb2.DrainWorkerRequest(worker_id="x")),
        "NOT_FOUND",
        "WORKER_NOT_FOUND",
        None,
    ),
    "resume nobody": (
        lambda mesh: mesh.admin.ResumeWorker(admin_pb2.ResumeWorkerRequest(worker_id="x")),
        "NOT_FOUND",
        "WORKER_NOT_FOUND",
        None,
    ),
    "no worker id": (
        lambda mesh: mesh.admin.DrainWorker(admin_pb2.DrainWorkerRequest()),
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
        "worker_id",
    ),
    "long worker id": (
        lambda mesh: mesh.admin.DrainWorker(admin_pb2.DrainWorkerRequest(worker_id="x" * 10_000)),
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
        "worker_id",
    ),
    "negative grace period": (
        lambda mesh: mesh.admin.DrainWorker(
            admin_pb2.DrainWorkerRequest(
                worker_id="w", grace_period=duration_pb2.Duration(seconds=-1)
            )
        ),
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
        "grace_period",
    ),
    "adapter for nobody": (
        lambda mesh: mesh.admin.LoadAdapter(admin_pb2.LoadAdapterRequest(worker_id="x")),
        "NOT_FOUND",
        "WORKER_NOT_FOUND",
        None,
    ),
    "adapter for a model it does not serve": (
        lambda mesh: mesh.admin.LoadAdapter(
            admin_pb2.LoadAdapterRequest(worker_id="w", model="other")
        ),
        "NOT_FOUND",
        "MODEL_NOT_FOUND",
        None,
    ),
    "adapter without a name": (
        lambda mesh: mesh.admin.LoadAdapter(admin_pb2.LoadAdapterRequest(worker_id="w", model="m")),
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
        "adapter.name",
    ),
    "unload without a name": (
        lambda mesh: mesh.admin.UnloadAdapter(
            admin_pb2.UnloadAdapterRequest(worker_id="w", model="m")
        ),
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
        "adapter",
    ),
}


@pytest.mark.parametrize("case", WRONG_REQUESTS)
async def test_wrong_requests(case: str) -> None:
    call, code, reason, field = WRONG_REQUESTS[case]
    async with mesh_of_one() as (mesh, _):
        error = await call_failure(call(mesh))
        assert (error.code, error.reason, error.field) == (code, reason, field)


async def test_lists() -> None:
    async with controller(LONG_LEASE) as mesh, reachable_address() as address:
        for worker_id, revision in (("w2", "1"), ("w1", "1"), ("w3", "2")):
            introduction = hello(address, worker_id)
            introduction.models[0].revision = revision
            adapter = model_pb2.Adapter(name=f"adapter-{worker_id}")
            introduction.models[0].adapters.append(adapter)
            await mesh.attach().attach(introduction)

        listed = await mesh.admin.ListWorkers(admin_pb2.ListWorkersRequest())
        assert [worker.worker_id for worker in listed.workers] == ["w1", "w2", "w3"]
        assert listed.completeness == endpoint_pb2.COMPLETENESS_LEARNING
        assert listed.workers[0].renewed_at.seconds > 1_000_000_000

        assert set(await mesh.workers("m-latest")) == {"w1", "w2", "w3"}
        assert set(await mesh.workers("adapter-w3")) == {"w3"}
        assert await mesh.workers("other") == {}

        models = (await mesh.admin.ListModels(admin_pb2.ListModelsRequest())).models
        assert [(each.model.revision, list(each.worker_ids)) for each in models] == [
            ("1", ["w1", "w2"]),
            ("2", ["w3"]),
        ]
        assert {adapter.name for adapter in models[0].model.adapters} == {
            "adapter-w1",
            "adapter-w2",
        }
