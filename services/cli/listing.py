"""`tokenmesh models` and `tokenmesh workers`: what a mesh serves, and who serves it."""

from __future__ import annotations

import sys
import time
from typing import Annotated

from rich.console import Console
from rich.table import Table

from services.cli import mesh_access
from services.cli.mesh_access import CALL_LIMIT_S
from services.cli.options import AsJson, Controller, Option, Url
from tokenmesh.controller.v1 import admin_pb2, admin_pb2_grpc, endpoint_pb2, registry_pb2
from tokenmesh.gateway.v1 import model_pb2, model_pb2_grpc
from tokenmesh.mesh.v1 import model_pb2 as mesh_model_pb2

CAPABILITY_PREFIX = "CAPABILITY_"
STATE_STYLES = {
    registry_pb2.WORKER_STATE_SERVING: "[green]serving[/]",
    registry_pb2.WORKER_STATE_DRAINING: "[yellow]draining[/]",
}


# No terminal, no width: programs want one line for each row.
PIPE_WIDTH = 1000


def _table() -> Table:
    return Table(box=None, header_style="bold", pad_edge=False)


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def models(url: Url = None, as_json: AsJson = False) -> None:
    """Lists the models that clients can ask for.

    [bold]Examples[/]
    tokenmesh models
    tokenmesh models --url http://mesh.example:8000
    tokenmesh models --json | jq -r '.models[].model.name'
    """
    with mesh_access.open_mesh(url) as channel:
        stub = model_pb2_grpc.ModelServiceStub(channel)
        listed = stub.ListModels(model_pb2.ListModelsRequest(), timeout=CALL_LIMIT_S)
    if as_json:
        mesh_access.print_json({"models": list(listed.models)})
        return
    if not listed.models:
        print("No model is served just now.")
        return
    _print(models_table(list(listed.models)))


def models_table(served: list[model_pb2.ServedModel]) -> Table:
    """One row for each model."""
    table = _table()
    for column in ("MODEL", "ENGINE", "WEIGHTS", "CAN"):
        table.add_column(column, overflow="fold")
    for column in ("CONTEXT", "WORKERS"):
        table.add_column(column, justify="right")
    for each in served:
        model = each.model
        can = [
            mesh_model_pb2.Capability.Name(capability).removeprefix(CAPABILITY_PREFIX).lower()
            for capability in model.capabilities
        ]
        table.add_row(
            "\n".join((model.name, *(f"  also {alias}" for alias in model.aliases))),
            model.engine,
            model.quantization or model.dtype,
            ", ".join(can),
            str(model.context_length_tokens),
            str(each.serving_workers),
        )
    return table


def workers(
    controller: Controller = None,
    model: Annotated[str, Option(help="Only workers that serve this model.")] = "",
    as_json: AsJson = False,
) -> None:
    """Lists the workers that hold a lease, and how busy they are.

    RUN and WAIT are requests, of as many as the worker takes; KV is the
    share of its KV cache in use; SEEN is the age of its last heartbeat.

    [bold]Examples[/]
    tokenmesh workers
    tokenmesh workers --controller 127.0.0.1:21001
    watch tokenmesh workers
    """
    with mesh_access.open_controller(controller) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        listed = stub.ListWorkers(admin_pb2.ListWorkersRequest(model=model), timeout=CALL_LIMIT_S)
    if as_json:
        mesh_access.print_json({"workers": list(listed.workers)})
        return
    if listed.completeness == endpoint_pb2.COMPLETENESS_LEARNING:
        print(
            "The controller has just started: workers may be missing for some seconds.",
            file=sys.stderr,
        )
    if not listed.workers:
        print("No worker holds a lease." if not model else f"No worker serves {model}.")
        return
    _print(workers_table(list(listed.workers), now_s=time.time()))


def workers_table(attached: list[endpoint_pb2.Worker], now_s: float) -> Table:
    """One row for each worker. `now_s` is seconds since the epoch."""
    table = _table()
    for column in ("WORKER", "STATE", "ADDRESS", "MODELS"):
        table.add_column(column, overflow="fold")
    for column in ("RUN", "WAIT", "KV", "TOK/S", "SEEN"):
        table.add_column(column, justify="right", no_wrap=True)
    for worker in attached:
        load, capacity = worker.load, worker.capacity
        kv_total_tokens = load.kv_total_tokens or capacity.kv_total_tokens
        heartbeat_age_s = max(0.0, now_s - worker.renewed_at.ToMilliseconds() / 1000)
        table.add_row(
            worker.worker_id,
            STATE_STYLES.get(worker.state, "unknown"),
            worker.address,
            "\n".join(model.name for model in worker.models),
            f"{load.running}/{capacity.max_running}",
            f"{load.waiting}/{capacity.max_waiting}",
            f"{load.kv_used_tokens / kv_total_tokens:.0%}" if kv_total_tokens else "–",
            f"{load.tokens_per_second:.0f}",
            f"{heartbeat_age_s:.0f} s",
        )
    return table
