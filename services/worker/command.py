"""The command line of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from services.mesh.errors import StartError
from services.mesh.logs import Level, LogFormat
from services.worker.engines.scripted.pace import Pace
from services.worker.engines.scripted.settings import DEFAULT_KV_TOKENS, ScriptedSettings
from services.worker.engines.settings import EngineSettings

ENV = "TOKENMESH_WORKER_"
DEFAULT_CONTROLLER = "127.0.0.1:21001"
NETWORK = "Network"
MODEL = "Model and engine"
LIMITS = "Limits"
SCRIPTED = "The scripted engine"
PROCESS = "Process"


class EngineName(StrEnum):
    """What computes the tokens."""

    TRANSFORMERS = "transformers"
    SCRIPTED = "scripted"


def worker(
    *,
    model_path: Annotated[
        str | None,
        typer.Option(
            "--model-path",
            "--model",
            envvar=f"{ENV}MODEL_PATH",
            help="A folder with a checkpoint, or a Hugging Face hub id. The scripted engine needs "
            "none.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    model_names: Annotated[
        str,
        typer.Option(
            envvar=f"{ENV}MODEL_NAMES",
            help="Names that clients may ask for, split by commas: the first is the model's name, "
            "the others are aliases. By default the folder's name or the hub id.",
            rich_help_panel=MODEL,
        ),
    ] = "",
    engine: Annotated[
        EngineName,
        typer.Option(
            envvar=f"{ENV}ENGINE",
            help="transformers runs checkpoints on CPU or GPU; scripted runs no model: it says a "
            "script at a set pace, to test and measure a mesh.",
            rich_help_panel=MODEL,
        ),
    ] = EngineName.TRANSFORMERS,
    device: Annotated[
        str,
        typer.Option(
            envvar=f"{ENV}DEVICE",
            help="auto, cpu, cuda, cuda:1, mps, xpu or npu. auto takes an accelerator if there is "
            "one.",
            rich_help_panel=MODEL,
        ),
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            envvar=f"{ENV}DTYPE",
            help="Type of the weights: auto, float32, float16 or bfloat16.",
            rich_help_panel=MODEL,
        ),
    ] = "auto",
    revision: Annotated[
        str | None,
        typer.Option(
            envvar=f"{ENV}REVISION",
            help="Branch, tag or commit of a hub id. Its main branch by default.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    chat_template: Annotated[
        Path | None,
        typer.Option(
            envvar=f"{ENV}CHAT_TEMPLATE",
            help="File with a Jinja chat template, in place of the checkpoint's own.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    trust_request_chat_template: Annotated[
        bool,
        typer.Option(
            "--trust-request-chat-template",
            envvar=f"{ENV}TRUST_REQUEST_CHAT_TEMPLATE",
            help="Let requests bring their own chat template, which is code, run in a sandbox.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            envvar=f"{ENV}THREADS",
            help="CPU threads that compute. All cores by default.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    controller: Annotated[
        list[str] | None,
        typer.Option(
            envvar=f"{ENV}CONTROLLER",
            help="host:port of a controller to attach to; repeat it for several. "
            "127.0.0.1:21001 by default.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    no_register: Annotated[
        bool,
        typer.Option(
            "--no-register",
            envvar=f"{ENV}NO_REGISTER",
            help="Attach to no controller: serve only those who know the address.",
            rich_help_panel=NETWORK,
        ),
    ] = False,
    host: Annotated[
        str,
        typer.Option(
            envvar=f"{ENV}HOST",
            help="Address to listen on. 0.0.0.0 for all; the port asks for no key.",
            rich_help_panel=NETWORK,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            envvar=f"{ENV}PORT",
            help="Port for gRPC. 0 takes a free one.",
            rich_help_panel=NETWORK,
        ),
    ] = 21002,
    advertise_address: Annotated[
        str,
        typer.Option(
            "--advertise-address",
            "--worker-address",
            envvar=f"{ENV}ADVERTISE_ADDRESS",
            help="host:port at which gateways and controllers reach this worker. By default --host "
            "and the port; for 0.0.0.0, this machine's own address.",
            rich_help_panel=NETWORK,
        ),
    ] = "",
    worker_id: Annotated[
        str,
        typer.Option(
            envvar=f"{ENV}WORKER_ID",
            help="Name in the mesh, unique and stable over restarts. By default the host's name "
            "and the port.",
            rich_help_panel=NETWORK,
        ),
    ] = "",
    labels: Annotated[
        str,
        typer.Option(
            envvar=f"{ENV}LABELS",
            help="Labels for people and for routing: zone=a,gpu=h200",
            rich_help_panel=NETWORK,
        ),
    ] = "",
    speed: Annotated[
        float,
        typer.Option(
            envvar=f"{ENV}SPEED",
            help="Relative speed for the lottery routing policy: 2 draws twice the requests of 1.",
            rich_help_panel=NETWORK,
        ),
    ] = 1.0,
    max_running: Annotated[
        int | None,
        typer.Option(
            "--limit-worker-concurrency",
            "--max-running",
            envvar=f"{ENV}MAX_RUNNING",
            help="Sequences computed at once. More raise throughput and the time per token. By "
            "default 32; 256 for the scripted engine.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_waiting: Annotated[
        int | None,
        typer.Option(
            envvar=f"{ENV}MAX_WAITING",
            help="Requests that may wait for a place; more are refused, so that gateways try "
            "another worker. By default 256; 1024 for the scripted engine.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    context_length: Annotated[
        int | None,
        typer.Option(
            envvar=f"{ENV}CONTEXT_LENGTH",
            help="Tokens of one prompt and its completion. What the model was made for by default; "
            "32768 for the scripted engine.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    kv_memory_mib: Annotated[
        int | None,
        typer.Option(
            envvar=f"{ENV}KV_MEMORY_MIB",
            help="Memory for the KV cache of the transformers engine, in MiB. By default a share "
            "of what is free.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    grace_period: Annotated[
        float,
        typer.Option(
            envvar=f"{ENV}GRACE_PERIOD",
            help="Seconds that running requests may go on once the worker is told to stop.",
            rich_help_panel=LIMITS,
        ),
    ] = 30.0,
    scripted_prefill_ms: Annotated[
        float,
        typer.Option(
            envvar=f"{ENV}SCRIPTED_PREFILL_MS",
            help="Milliseconds that each prompt costs, whatever its length.",
            rich_help_panel=SCRIPTED,
        ),
    ] = 0.0,
    scripted_prefill_token_ms: Annotated[
        float,
        typer.Option(
            envvar=f"{ENV}SCRIPTED_PREFILL_TOKEN_MS",
            help="Milliseconds that each prompt token costs.",
            rich_help_panel=SCRIPTED,
        ),
    ] = 0.0,
    scripted_token_interval_ms: Annotated[
        float,
        typer.Option(
            envvar=f"{ENV}SCRIPTED_TOKEN_INTERVAL_MS",
            help="Milliseconds between two tokens of a sequence. 0 is as fast as possible.",
            rich_help_panel=SCRIPTED,
        ),
    ] = 0.0,
    scripted_answer_tokens: Annotated[
        int,
        typer.Option(
            envvar=f"{ENV}SCRIPTED_ANSWER_TOKENS",
            help="Tokens of an answer that nothing else ends. 0 goes on to max_tokens or the "
            "context's end.",
            rich_help_panel=SCRIPTED,
        ),
    ] = 128,
    scripted_kv_tokens: Annotated[
        int,
        typer.Option(
            envvar=f"{ENV}SCRIPTED_KV_TOKENS",
            help="Tokens that all running sequences may hold; requests wait when it is full.",
            rich_help_panel=SCRIPTED,
        ),
    ] = DEFAULT_KV_TOKENS,
    metrics_port: Annotated[
        int,
        typer.Option(
            envvar=f"{ENV}METRICS_PORT",
            help="Port for Prometheus, at /metrics. 0 takes a free one; the log tells which.",
            rich_help_panel=PROCESS,
        ),
    ] = 0,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            envvar=f"{ENV}READY_FILE",
            help="File to write, as JSON, once the worker serves: process id and addresses.",
            rich_help_panel=PROCESS,
        ),
    ] = None,
    log_level: Annotated[
        Level,
        typer.Option(
            envvar=f"{ENV}LOG_LEVEL", help="The least that is logged.", rich_help_panel=PROCESS
        ),
    ] = "info",
    log_format: Annotated[
        LogFormat,
        typer.Option(
            envvar=f"{ENV}LOG_FORMAT",
            help="console is for people, json for machines; auto takes what fits standard error.",
            rich_help_panel=PROCESS,
        ),
    ] = "auto",
) -> None:
    """Run a worker: load a model, attach to the controllers, and serve gateways.

    The worker says "ready" once its model is loaded. Ctrl-C or SIGTERM drains it: it takes nothing
    new, running requests may end within --grace-period, and a second signal ends it at once.

    Examples:

    tokenmesh worker --model examples/demo_model/model

    tokenmesh worker --model Qwen/Qwen3-0.6B --model-names qwen3,default --device cuda --port 0

    tokenmesh worker --engine scripted --scripted-token-interval-ms 20 --no-register
    """
    from services.mesh.process import run_service

    def serve_until(stop: asyncio.Event) -> Awaitable[None]:
        from services.worker.server import serve
        from services.worker.settings import WorkerSettings, read_labels

        shared = _given(
            model_names=tuple(each.strip() for each in model_names.split(",") if model_names),
            max_running=max_running,
            max_waiting=max_waiting,
            context_length_tokens=context_length,
        )
        if engine is EngineName.SCRIPTED:
            pace = Pace(
                prefill_s=scripted_prefill_ms / 1000,
                prefill_token_s=scripted_prefill_token_ms / 1000,
                token_interval_s=scripted_token_interval_ms / 1000,
                answer_tokens=scripted_answer_tokens,
            )
            chosen: EngineSettings | ScriptedSettings = ScriptedSettings(
                **shared, pace=pace, kv_total_tokens=scripted_kv_tokens
            )
        else:
            chosen = EngineSettings(
                **shared,
                model_path=_required_model_path(model_path),
                **_given(
                    revision=revision,
                    device=device,
                    dtype=dtype,
                    kv_memory_bytes=kv_memory_mib and kv_memory_mib * 1024 * 1024,
                    threads=threads,
                    chat_template_path=chat_template,
                ),
            )
        settings = WorkerSettings(
            engine=chosen,
            host=host,
            port=port,
            metrics_port=metrics_port,
            ready_file=ready_file,
            controllers=() if no_register else tuple(controller or [DEFAULT_CONTROLLER]),
            worker_id=worker_id,
            advertise_address=advertise_address,
            speed=speed,
            labels=read_labels(labels),
            grace_period_s=grace_period,
            may_bring_template=trust_request_chat_template,
        )
        return serve(settings, stop)

    run_service("worker", serve_until, log_level=log_level, log_format=log_format)


def _given(**options: Any) -> dict[str, Any]:
    """The options that were set; settings have their own defaults for the others."""
    return {name: value for name, value in options.items() if value not in {None, ()}}


def _required_model_path(model_path: str | None) -> str:
    if not model_path:
        raise StartError(
            "--model-path is missing: give a folder or a Hugging Face hub id, or --engine scripted"
        )
    return model_path
