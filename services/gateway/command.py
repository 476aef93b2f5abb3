"""The command line of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Annotated

import typer

from services.mesh import options

RoutingOption = partial(typer.Option, rich_help_panel="Routing and failures")
ResponsesOption = partial(typer.Option, rich_help_panel="Stored responses (/v1/responses)")


def gateway(
    *,
    controller: options.Controllers = None,
    host: Annotated[
        str,
        options.NetworkOption(
            help="Address to listen on. Beyond this machine it needs API keys, or "
            "--allow-anonymous.",
        ),
    ] = "127.0.0.1",
    published_address: Annotated[
        str,
        options.NetworkOption(
            help="Where clients reach this gateway, if that is not --host: the address of the "
            "Envoy before it. What is said of --host is then asked of this one.",
        ),
    ] = "",
    allow_anonymous: options.AllowAnonymous = False,
    port: options.Port = 21003,
    reuse_port: Annotated[
        bool,
        options.NetworkOption(
            "--reuse-port",
            help="Share the port with other gateway processes of this machine that say so too: "
            "one process uses one core.",
        ),
    ] = False,
    gateway_id: Annotated[
        str | None,
        options.NetworkOption(
            "--id",
            envvar="TOKENMESH_GATEWAY_ID",
            help="Name of this gateway in the controllers' logs. Host and process by default.",
        ),
    ] = None,
    api_keys: options.ApiKeys = None,
    api_keys_file: options.ApiKeysFile = None,
    routing_policy: Annotated[
        str,
        RoutingOption(
            help="How a worker is chosen: prefix_affinity (prompts that begin alike share a worker "
            "and its prefix cache, within a bound on its load), shortest_queue, power_of_two (as "
            "even, and better with many gateways), least_latency (as measured), round_robin, "
            "random, or lottery (by the workers' speed).",
        ),
    ] = "prefix_affinity",
    affinity_load_factor: Annotated[
        float,
        RoutingOption(
            help="Times its part of all requests that prefix_affinity lets a worker have. Over 1: "
            "lower is more even, higher finds more in prefix caches.",
        ),
    ] = 1.25,
    affinity_free_requests: Annotated[
        int,
        RoutingOption(help="Requests at a worker that prefix_affinity takes for no load at all."),
    ] = 4,
    max_attempts: Annotated[
        int,
        RoutingOption(
            help="Workers that a request is tried on, before its first token, when they refuse it.",
        ),
    ] = 3,
    max_losses: Annotated[
        int,
        RoutingOption(
            help="Workers that a request may lose to death, hanging or a cut before it fails.",
        ),
    ] = 8,
    resume_wait: Annotated[
        float,
        RoutingOption(
            help="Seconds that a request whose worker was lost waits for another one, where there "
            "is none just then. 0 fails it at once.",
        ),
    ] = 5.0,
    hung_after: Annotated[
        float,
        RoutingOption(
            help="Seconds of silence after which a worker that has requests and answers nothing is "
            "taken for hung, and its requests go on elsewhere."
        ),
    ] = 2.5,
    poison_deaths: Annotated[
        int,
        RoutingOption(
            help="Workers in a row that die before a request's first token until it is stopped and "
            "quarantined. 0 never stops one."
        ),
    ] = 2,
    quarantine: Annotated[
        float,
        RoutingOption(help="Seconds that a request which has killed workers is refused."),
    ] = 600.0,
    breaker_faults: Annotated[
        int,
        RoutingOption(help="Failures in a row after which a worker gets no requests for a while."),
    ] = 5,
    breaker_backoff: Annotated[
        float,
        RoutingOption(help="Seconds until a worker that failed is tried again; doubles up to 8 s."),
    ] = 0.25,
    forget_after: Annotated[
        float,
        RoutingOption(
            help="Seconds that a model stays known after its last worker went: its clients get 503 "
            "with Retry-After, and 404 after that.",
        ),
    ] = 60.0,
    max_requests: Annotated[
        int,
        options.LimitOption(
            help="Requests carried at once; more are refused with 429 and Retry-After."
        ),
    ] = 2048,
    max_waiting: Annotated[
        int,
        options.LimitOption(
            help="Of these, requests of each model that wait while its workers are full. Callers "
            "share the queue fairly."
        ),
    ] = 512,
    max_wait: Annotated[
        float,
        options.LimitOption(
            help="Seconds that this queue may take to drain at the measured rate; it is kept "
            "shorter where workers are slow."
        ),
    ] = 30.0,
    max_requests_per_caller: Annotated[
        int,
        options.LimitOption(
            help="Requests of one caller, which is a key or an address, carried at once. 0 for no "
            "limit."
        ),
    ] = 0,
    max_conversations: Annotated[
        int,
        options.LimitOption(help="Conversations that ChatService.Converse holds at once."),
    ] = 1024,
    request_timeout: Annotated[
        float,
        options.LimitOption(
            help="Seconds that a request may take. Clients may ask for less, by a gRPC deadline or "
            "the header x-request-timeout.",
        ),
    ] = 600.0,
    credit_window: Annotated[
        int,
        options.LimitOption(
            help="Tokens that a worker may be ahead of a client that reads slowly."
        ),
    ] = 256,
    responses_db: Annotated[
        str,
        ResponsesOption(
            help="SQLite file that responses are kept in. Gateways of one machine may share it; on "
            "a network file system it may not lie. :memory: is for one process alone and ends with "
            "it: then, and with gateways on several machines, a response is known only to the "
            "gateway that made it.",
        ),
    ] = ":memory:",
    responses_max: Annotated[
        int,
        ResponsesOption(
            help="Responses kept. Beyond, those go that nobody has gone on with for longest."
        ),
    ] = 100_000,
    responses_max_bytes: Annotated[
        int,
        ResponsesOption(help="Bytes that they may take together, without SQLite's own part."),
    ] = 256 << 20,
    responses_ttl: Annotated[
        float,
        ResponsesOption(
            help="Seconds that a response is kept since it was made, or its conversation went on."
        ),
    ] = 30 * 86_400.0,
    responses_max_background: Annotated[
        int,
        ResponsesOption(
            help="Responses that are made in the background at once, half of them for one caller; "
            "more are refused with 429. "
            "When the gateway stops, they get --grace-period, and fail after that. 0 for none."
        ),
    ] = 64,
    grace_period: options.GracePeriod = 30.0,
    metrics_port: options.MetricsPort = 0,
    ready_file: options.ReadyFile = None,
    log_level: options.LogLevel = "info",
    log_format: options.LogFormat = "auto",
) -> None:
    """Run a gateway: the data plane that every request passes through.

    It watches the controllers (--controller HOST:PORT, once for each), picks a worker for each
    request, streams the answer and goes on to another worker when one fails. It keeps no state but
    the responses that clients ask it to keep: run as many as you need, behind Envoy. With every
    controller down it serves from what it last knew.

    Example: tokenmesh gateway --controller 127.0.0.1:21001 --routing-policy power_of_two
    """
    from services.gateway.keys.sources import keys_of_option, warn_of_short_keys
    from services.gateway.links.breaker import BreakerTuning
    from services.gateway.openai.responses.settings import ResponseSettings
    from services.gateway.openai.responses.store.base import StoreLimits
    from services.gateway.routing.prefix_affinity import AffinityTuning
    from services.gateway.server import SERVICE, serve
    from services.gateway.settings import GatewaySettings, default_gateway_id
    from services.mesh.process import run_service

    def serve_until(stop: asyncio.Event) -> Awaitable[None]:
        warn_of_short_keys(api_keys)
        return serve(
            GatewaySettings(
                host=host,
                published_address=published_address,
                allow_anonymous=allow_anonymous,
                port=port,
                metrics_port=metrics_port,
                ready_file=ready_file,
                reuse_port=reuse_port,
                api_keys=keys_of_option(api_keys),
                api_keys_file=api_keys_file,
                controllers=tuple(controller or [options.DEFAULT_CONTROLLER]),
                gateway_id=default_gateway_id() if gateway_id is None else gateway_id,
                routing_policy=routing_policy,
                affinity=AffinityTuning(
                    load_factor=affinity_load_factor, free_requests=affinity_free_requests
                ),
                max_requests=max_requests,
                max_waiting=max_waiting,
                max_wait_s=max_wait,
                max_requests_per_caller=max_requests_per_caller,
                max_conversations=max_conversations,
                request_timeout_s=request_timeout,
                max_attempts=max_attempts,
                max_losses=max_losses,
                resume_wait_s=resume_wait,
                hung_after_s=hung_after,
                poison_deaths=poison_deaths,
                quarantine_s=quarantine,
                credit_window_tokens=credit_window,
                breaker=BreakerTuning(
                    faults_to_trip=breaker_faults, initial_backoff_s=breaker_backoff
                ),
                forget_after_s=forget_after,
                responses=ResponseSettings(
                    db=responses_db,
                    limits=StoreLimits(responses_max, responses_max_bytes, responses_ttl),
                    max_background=responses_max_background,
                ),
                grace_period_s=grace_period,
            ),
            stop,
        )

    run_service(SERVICE, serve_until, log_level=log_level, log_format=log_format)
