"""`tokenmesh drain` and `tokenmesh resume`: take a worker out of service and put it back."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli import mesh_access
from services.cli.mesh_access import CALL_LIMIT_S
from services.cli.options import Controller, Option
from tokenmesh.controller.v1 import admin_pb2, admin_pb2_grpc

WorkerId = Annotated[
    str, typer.Argument(metavar="WORKER", help="Its id, as `tokenmesh workers` lists it.")
]


def drain(
    worker_id: WorkerId,
    controller: Controller = None,
    grace_s: Annotated[
        float | None,
        Option(
            "--grace",
            min=0,
            metavar="SECONDS",
            help="How long running requests may go on. Default: the worker's own setting.",
        ),
    ] = None,
) -> None:
    """Has a worker take no new request and give those it has to others.

    Streams go on on other workers of the same model; without one, they
    end here within the grace period. Returns as soon as the worker has
    confirmed. The worker keeps its lease and its model: tokenmesh resume
    has it serve again at once.

    [bold]Examples[/]
    tokenmesh drain worker-1
    tokenmesh drain worker-1 --grace 30
    """
    request = admin_pb2.DrainWorkerRequest(worker_id=worker_id)
    if grace_s is not None:
        request.grace_period.FromMilliseconds(round(grace_s * 1000))
    with mesh_access.open_controller(controller) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        worker = stub.DrainWorker(request, timeout=CALL_LIMIT_S).worker
    print(f"{worker.worker_id} drains; {worker.load.running} requests were running.")


def resume(worker_id: WorkerId, controller: Controller = None) -> None:
    """Has a draining worker take requests again.

    [bold]Example[/]
    tokenmesh resume worker-1
    """
    with mesh_access.open_controller(controller) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        request = admin_pb2.ResumeWorkerRequest(worker_id=worker_id)
        worker = stub.ResumeWorker(request, timeout=CALL_LIMIT_S).worker
    print(f"{worker.worker_id} serves.")
