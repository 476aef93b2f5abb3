"""The command line of the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.mesh.logs import Level, LogFormat

ENV = "TOKENMESH_GATEWAY_"


def gateway(
    *,
    host: Annotated[
        str,
        typer.Option(
            envvar=f"{ENV}HOST",
            help="Address to listen on. 0.0.0.0 for all; the port asks for no key.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar=f"{ENV}PORT", help="Port for gRPC. 0 takes a free one.")
    ] = 21003,
    reuse_port: Annotated[
        bool,
        typer.Option(
            "--reuse-port",
            envvar=f"{ENV}REUSE_PORT",
            help="Share the port with other gateway processes of this machine that say so too: "
            "one process uses one core.",
        ),
    ] = False,
    metrics_port: Annotated[
        int,
        typer.Option(
            envvar=f"{ENV}METRICS_PORT",
            help="Port for Prometheus, at /metrics. 0 takes a free one; the log tells which.",
        ),
    ] = 0,
    controller: Annotated[
        list[str] | None,
        typer.Option(
            envvar=f"{ENV}CONTROLLER",
            metavar="HOST:PORT",
            help="Controller to watch. Give it once for each controller.  [default: "
            "127.0.0.1:21001]",
        ),
    ] = None,
    gateway_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            envvar=f"{ENV}ID",
            help="Name of this gateway in the controllers' logs. Host and process by default.",
        ),
    ] = None,
    routing_policy: Annotated[
        str,
        typer.Option(
            envvar=f"{ENV}ROUTING_POLICY",
            help="How a worker is chosen: shortest_queue, power_of_two (as even, and better with "
            "many gateways), round_robin, or lottery (by the workers' speed).",
        ),
    ] = "shortest_queue",
    max_requests: Annotated[
        int,
        typer.Option(
            envvar=f"{ENV}MAX_REQUESTS",
            help="Requests carried at once; more are refused with 429 and Retry-After.",
        ),
    ] = 2048,
    max_conversations: Annotated[
        int,
        typer.Option(
            envvar=f"{ENV}MAX_CONVERSATIONS",
            help="Conversations that ChatService.Converse holds at once.",
        ),
    ] = 1024,
    request_timeout: Annotated[
        float,
        typer.Option(
            envvar=f"{ENV}REQUEST_TIMEOUT",
            help="Seconds that a request may take. Clients may ask for less, by a gRPC deadline or "
            "the header x-request-timeout.",
        ),
    ] = 600.0,
    max_attempts: Annotated[
        int,
        typer.Option(
            envvar=f"{ENV}MAX_ATTEMPTS",
            help="Workers that a request is tried on, before its first token, when they fail.",
        ),
    ] = 3,
    credit_window: Annotated[
        int,
        typer.Option(
            envvar=f"{ENV}CREDIT_WINDOW",
            help="Tokens that a worker may be ahead of a client that reads slowly.",
        ),
    ] = 4096,
    breaker_faults: Annotated[
        int,
        typer.Option(
            envvar=f"{ENV}BREAKER_FAULTS",
            help="Failures in a row after which a worker gets no requests for a while.",
        ),
    ] = 5,
    breaker_backoff: Annotated[
        float,
        typer.Option(
            envvar=f"{ENV}BREAKER_BACKOFF",
            help="Seconds until a worker that failed is tried again; doubles up to 8 s.",
        ),
    ] = 0.25,
    forget_after: Annotated[
        float,
        typer.Option(
            envvar=f"{ENV}FORGET_AFTER",
            help="Seconds that a model stays known after its last worker went: its clients get 503 "
            "with Retry-After, and 404 after that.",
        ),
    ] = 60.0,
    grace_period: Annotated[
        float,
        typer.Option(
            envvar=f"{ENV}GRACE_PERIOD",
            help="Seconds that running requests get to end after SIGTERM or Ctrl-C.",
        ),
    ] = 30.0,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            envvar=f"{ENV}READY_FILE",
            help="File to write, as JSON, once the gateway serves: process id and addresses.",
        ),
    ] = None,
    log_level: Annotated[
        Level, typer.Option(envvar=f"{ENV}LOG_LEVEL", help="The least that is logged.")
    ] = "info",
    log_format: Annotated[
        LogFormat,
        typer.Option(
            envvar=f"{ENV}LOG_FORMAT",
            help="console is for people, json for machines; auto takes what fits standard error.",
        ),
    ] = "auto",
) -> None:
    """Run a gateway: the data plane that every request passes through.

    It watches the controllers (--controller HOST:PORT, once for each), picks a worker for each
    request, streams the answer and goes on to another worker when one fails. It keeps no state:
    run as many as you need, behind Envoy. With every controller down it serves from what it last
    knew.

    Example: tokenmesh gateway --controller 127.0.0.1:21001 --routing-policy power_of_two
    """
    from services.gateway.breaker import BreakerTuning
    from services.gateway.server import SERVICE, serve
    from services.gateway.settings import (
        DEFAULT_CONTROLLER,
        GatewaySettings,
        default_gateway_id,
    )
    from services.mesh.process import run_service

    run_service(
        SERVICE,
        lambda stop: serve(
            GatewaySettings(
                host=host,
                port=port,
                metrics_port=metrics_port,
                ready_file=ready_file,
                reuse_port=reuse_port,
                controllers=tuple(controller or (DEFAULT_CONTROLLER,)),
                gateway_id=default_gateway_id() if gateway_id is None else gateway_id,
                routing_policy=routing_policy,
                max_requests=max_requests,
                max_conversations=max_conversations,
                request_timeout_s=request_timeout,
                max_attempts=max_attempts,
                credit_window_tokens=credit_window,
                breaker=BreakerTuning(
                    faults_to_trip=breaker_faults, initial_backoff_s=breaker_backoff
                ),
                forget_after_s=forget_after,
                grace_period_s=grace_period,
            ),
            stop,
        ),
        log_level=log_level,
        log_format=log_format,
    )
