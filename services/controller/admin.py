"""AdminService: what operators see and do."""

from __future__ import annotations

from typing import Any

from services.controller.attachment import MakeCommand
from services.controller.keeper import LeaseKeeper
from services.controller.registry import Worker, WorkerState
from services.controller.settings import ControllerSettings
from services.controller.translation import COMPLETENESS, served_models, worker_message
from services.controller.validation import MAX_MODEL_NAME_CHARACTERS
from services.mesh.errors import InvalidRequestError, ModelNotFoundError, WorkerNotFoundError
from tokenmesh.controller.v1 import admin_pb2, admin_pb2_grpc, endpoint_pb2, registry_pb2

# A week: longer than any request runs.
MAX_GRACE_S = 7 * 24 * 3600.0


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Lists what is known; passes commands on to workers over their Attach streams."""

    def __init__(self, settings: ControllerSettings, keeper: LeaseKeeper) -> None:
        self._settings = settings
        self._keeper = keeper
        self._registry = keeper.registry

    async def ListWorkers(
        self, request: admin_pb2.ListWorkersRequest, context: Any
    ) -> admin_pb2.ListWorkersResponse:
        """All workers that hold a lease, or those that serve one model, by worker id."""
        workers = [
            worker_message(worker)
            for worker in self._registry
            if not request.model or worker.serves(request.model)
        ]
        completeness = COMPLETENESS[self._registry.completeness]
        return admin_pb2.ListWorkersResponse(workers=workers, completeness=completeness)

    async def ListModels(
        self, request: admin_pb2.ListModelsRequest, context: Any
    ) -> admin_pb2.ListModelsResponse:
        """All models that some worker serves, by name."""
        return admin_pb2.ListModelsResponse(models=served_models(self._registry))

    async def DrainWorker(
        self, request: admin_pb2.DrainWorkerRequest, context: Any
    ) -> admin_pb2.DrainWorkerResponse:
        """Has the worker take no new request."""
        grace_period = request.grace_period if request.HasField("grace_period") else None
        if grace_period is not None:
            # Seconds and nanoseconds may hold what is no Duration; its own methods raise for it.
            grace_s = grace_period.seconds + grace_period.nanos / 1e9
            if not 0 <= grace_s <= MAX_GRACE_S:
                raise InvalidRequestError(
                    f"grace_period is {grace_s:g} s; it must be from 0 to {MAX_GRACE_S:g} s",
                    field="grace_period",
                )

        def drain(command_id: str) -> registry_pb2.AttachResponse:
            return registry_pb2.AttachResponse(
                drain=registry_pb2.Drain(command_id=command_id, grace_period=grace_period)
            )

        worker = await self._set_state(request.worker_id, WorkerState.DRAINING, drain)
        return admin_pb2.DrainWorkerResponse(worker=worker)

    async def ResumeWorker(
        self, request: admin_pb2.ResumeWorkerRequest, context: Any
    ) -> admin_pb2.ResumeWorkerResponse:
        """Has a draining worker serve again."""

        def resume(command_id: str) -> registry_pb2.AttachResponse:
            return registry_pb2.AttachResponse(resume=registry_pb2.Resume(command_id=command_id))

        worker = await self._set_state(request.worker_id, WorkerState.SERVING, resume)
        return admin_pb2.ResumeWorkerResponse(worker=worker)

    async def LoadAdapter(
        self, request: admin_pb2.LoadAdapterRequest, context: Any
    ) -> admin_pb2.LoadAdapterResponse:
        """Loads an adapter. The worker has said ModelsChanged before its outcome comes."""
        self._check_model(request.worker_id, request.model)
        _require("adapter.name", request.adapter.name)

        def load(command_id: str) -> registry_pb2.AttachResponse:
            return registry_pb2.AttachResponse(
                load_adapter=registry_pb2.LoadAdapter(
                    command_id=command_id, model=request.model, adapter=request.adapter
                )
            )

        await self._command(request.worker_id, load, self._settings.adapter_limit_s)
        return admin_pb2.LoadAdapterResponse(worker=self._worker_message(request.worker_id))

    async def UnloadAdapter(
        self, request: admin_pb2.UnloadAdapterRequest, context: Any
    ) -> admin_pb2.UnloadAdapterResponse:
        """Unloads an adapter. The worker has said ModelsChanged before its outcome comes."""
        self._check_model(request.worker_id, request.model)
        _require("adapter", request.adapter)

        def unload(command_id: str) -> registry_pb2.AttachResponse:
            return registry_pb2.AttachResponse(
                unload_adapter=registry_pb2.UnloadAdapter(
                    command_id=command_id, model=request.model, adapter=request.adapter
                )
            )

        await self._command(request.worker_id, unload, self._settings.adapter_limit_s)
        return admin_pb2.UnloadAdapterResponse(worker=self._worker_message(request.worker_id))

    async def _set_state(
        self, worker_id: str, state: WorkerState, make: MakeCommand
    ) -> endpoint_pb2.Worker:
        if self._worker(worker_id).state is not state:
            await self._command(worker_id, make, self._settings.command_limit_s, state)
        return self._worker_message(worker_id)

    async def _command(
        self, worker_id: str, make: MakeCommand, limit_s: float, state: WorkerState | None = None
    ) -> None:
        lease, stream = self._keeper.stream_of(worker_id)
        await stream.command(make, limit_s)
        if state is not None:
            # The worker's next heartbeat says so too; gateways should not wait for that.
            self._keeper.set_state(lease, state)

    def _worker(self, worker_id: str) -> Worker:
        _require("worker_id", worker_id)
        worker = self._registry.get(worker_id)
        if worker is None:
            raise WorkerNotFoundError(f"no worker {worker_id!r} holds a lease")
        return worker

    def _worker_message(self, worker_id: str) -> endpoint_pb2.Worker:
        return worker_message(self._worker(worker_id))

    def _check_model(self, worker_id: str, model: str) -> None:
        worker = self._worker(worker_id)
        _require("model", model)
        if not worker.serves(model):
            raise ModelNotFoundError(f"worker {worker_id!r} serves no model {model!r}")


def _require(field: str, given: str) -> None:
    if not given:
        raise InvalidRequestError(f"{field} is empty; it is required", field=field)
    if len(given) > MAX_MODEL_NAME_CHARACTERS:
        raise InvalidRequestError(
            f"{field} has {len(given)} characters; at most {MAX_MODEL_NAME_CHARACTERS} are allowed",
            field=field,
        )
