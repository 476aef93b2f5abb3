"""The command line of the controller."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from services.mesh import options

WorkerOption = partial(typer.Option, rich_help_panel="Workers")


def controller(
    *,
    host: options.Host = "127.0.0.1",
    allow_anonymous: options.AllowAnonymous = False,
    port: options.Port = 21001,
    controller_id: Annotated[
        str | None,
        options.NetworkOption(
            "--id",
            envvar="TOKENMESH_CONTROLLER_ID",
            help="Name of this controller, unique among replicas. The host name by default.",
        ),
    ] = None,
    lease_ttl: Annotated[
        float,
        WorkerOption(
            help="Seconds that a silent worker keeps its place. Shorter notices a dead worker "
            "sooner; longer forgives pauses. At least twice the heartbeat interval.",
        ),
    ] = 6.0,
    heartbeat_interval: Annotated[
        float,
        WorkerOption(
            help="Seconds between two heartbeats of a worker. Shorter keeps the load that gateways "
            "route by fresher; each costs a message to every gateway.",
        ),
    ] = 2.0,
    dial_limit: Annotated[
        float, WorkerOption(help="Seconds that a new worker's address may take to answer.")
    ] = 2.0,
    command_limit: Annotated[
        float, WorkerOption(help="Seconds that a worker may take to confirm a drain or a resume.")
    ] = 10.0,
    adapter_limit: Annotated[
        float,
        WorkerOption(
            help="Seconds that a worker may take to load or unload an adapter, download included.",
        ),
    ] = 300.0,
    max_workers: Annotated[int, options.LimitOption(help="Workers taken on at most.")] = 10_000,
    max_watchers: Annotated[
        int, options.LimitOption(help="Gateways that may watch at most.")
    ] = 1_000,
    metrics_port: options.MetricsPort = 0,
    ready_file: options.ReadyFile = None,
    log_level: options.LogLevel = "info",
    log_format: options.LogFormat = "auto",
) -> None:
    """Run a controller: the control plane that knows which worker serves which model.

    Workers attach to it (tokenmesh worker --controller HOST:PORT) and hold a
    lease for as long as they send heartbeats; gateways watch it (tokenmesh
    gateway --controller HOST:PORT). No request passes through it, and it
    stores nothing: one that is started anew knows every worker again within a
    heartbeat interval. Several may run side by side; give all of them to every
    worker and gateway.

    Example: tokenmesh controller --port 21001 --lease-ttl 6
    """
    import socket

    from services.controller.server import SERVICE, serve
    from services.controller.settings import ControllerSettings
    from services.mesh.process import run_service

    run_service(
        SERVICE,
        lambda stop: serve(
            ControllerSettings(
                host=host,
                allow_anonymous=allow_anonymous,
                port=port,
                metrics_port=metrics_port,
                ready_file=ready_file,
                controller_id=socket.gethostname() if controller_id is None else controller_id,
                lease_ttl_s=lease_ttl,
                heartbeat_interval_s=heartbeat_interval,
                dial_limit_s=dial_limit,
                command_limit_s=command_limit,
                adapter_limit_s=adapter_limit,
                max_workers=max_workers,
                max_watchers=max_watchers,
            ),
            stop,
        ),
        log_level=log_level,
        log_format=log_format,
    )
