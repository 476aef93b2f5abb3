"""The command line of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from services.mesh import options
from services.worker import engine_options

ScriptedOption = partial(typer.Option, rich_help_panel="The scripted engine")


class EngineName(StrEnum):
    """What computes the tokens, the vectors or the scores."""

    AUTO = "auto"
    ENCODER = "encoder"
    TRANSFORMERS = "transformers"
    SCRIPTED = "scripted"


def worker(
    *,
    model_path: engine_options.ModelPath = None,
    model_names: engine_options.ModelNames = "",
    engine: Annotated[
        EngineName,
        engine_options.ModelOption(
            help="transformers runs checkpoints that generate, on CPU or GPU; encoder those that "
            "embed texts or score pairs; auto looks which of the two a checkpoint is for. scripted "
            "runs no model: it says a script at a set pace, to test and measure a mesh.",
        ),
    ] = EngineName.AUTO,
    revision: engine_options.Revision = None,
    chat_template: engine_options.ChatTemplate = None,
    chat_format: engine_options.ChatFormat = "auto",
    trust_request_chat_template: engine_options.TrustRequestChatTemplate = False,
    allow_pickle: engine_options.AllowPickle = False,
    trust_remote_code: engine_options.TrustRemoteCode = False,
    device: engine_options.Device = "auto",
    dtype: engine_options.Dtype = "auto",
    quantization: engine_options.Quantization = None,
    load_8bit: engine_options.Load8bit = False,
    load_4bit: engine_options.Load4bit = False,
    gpus: engine_options.Gpus = "",
    num_gpus: engine_options.NumGpus = None,
    no_cuda_graphs: engine_options.NoCudaGraphs = False,
    threads: engine_options.Threads = None,
    kv_cache_memory: engine_options.KvCacheMemory = None,
    gpu_memory_utilization: engine_options.GpuMemoryUtilization = 0.85,
    max_gpu_memory: engine_options.MaxGpuMemory = None,
    cpu_offload: engine_options.CpuOffload = False,
    max_cpu_memory: engine_options.MaxCpuMemory = None,
    offload_folder: engine_options.OffloadFolder = None,
    pooling: engine_options.Pooling = "auto",
    batch_tokens: engine_options.BatchTokens = None,
    embed_in_truncate: engine_options.EmbedInTruncate = False,
    controller: options.Controllers = None,
    no_register: Annotated[
        bool,
        options.NetworkOption(
            "--no-register",
            help="Attach to no controller: serve only those who know the address.",
        ),
    ] = False,
    host: options.Host = "127.0.0.1",
    allow_anonymous: options.AllowAnonymous = False,
    port: options.Port = 21002,
    advertise_address: Annotated[
        str,
        options.NetworkOption(
            "--advertise-address",
            "--worker-address",
            help="host:port at which gateways and controllers reach this worker. By default --host "
            "and the port; for 0.0.0.0, this machine's own address.",
        ),
    ] = "",
    worker_id: Annotated[
        str,
        options.NetworkOption(
            help="Name in the mesh, unique and stable over restarts. By default the host's name "
            "and the port.",
        ),
    ] = "",
    labels: Annotated[
        str,
        options.NetworkOption(help="Labels for people and for routing: zone=a,gpu=h200"),
    ] = "",
    speed: Annotated[
        float,
        options.NetworkOption(
            help="Relative speed for the lottery routing policy: 2 draws twice the requests of 1.",
        ),
    ] = 1.0,
    max_running: Annotated[
        int | None,
        options.LimitOption(
            "--limit-worker-concurrency",
            "--max-running",
            help="Sequences computed at once. More raise throughput and the time per token. By "
            "default 32; 256 for the scripted engine, and calls for the encoder.",
        ),
    ] = None,
    max_waiting: Annotated[
        int | None,
        options.LimitOption(
            help="Requests that may wait for a place; more are refused, so that gateways try "
            "another worker. By default 256; 1024 for the scripted engine and the encoder.",
        ),
    ] = None,
    context_length: Annotated[
        int | None,
        options.LimitOption(
            help="Tokens of one prompt and its completion, or of a text to embed. What the model "
            "was made for by default; 32768 for the scripted engine.",
        ),
    ] = None,
    grace_period: options.GracePeriod = 30.0,
    hung_step: Annotated[
        float,
        options.LimitOption(
            help="Seconds that one step of the engine may take. If it takes longer, it hangs: "
            "requests go to other workers, and this one ends."
        ),
    ] = 120.0,
    scripted_prefill_ms: Annotated[
        float,
        ScriptedOption(help="Milliseconds that each prompt costs, whatever its length."),
    ] = 0.0,
    scripted_prefill_token_ms: Annotated[
        float, ScriptedOption(help="Milliseconds that each prompt token costs.")
    ] = 0.0,
    scripted_token_interval_ms: Annotated[
        float,
        ScriptedOption(
            help="Milliseconds between two tokens of a sequence. 0 is as fast as possible.",
        ),
    ] = 0.0,
    scripted_answer_tokens: Annotated[
        int,
        ScriptedOption(
            help="Tokens of an answer that nothing else ends. 0 goes on to max_tokens or the "
            "context's end.",
        ),
    ] = 128,
    scripted_kv_tokens: Annotated[
        int | None,
        ScriptedOption(
            help="Tokens that all running sequences may hold; requests wait when it is full. By "
            "default as many as 256 whole contexts of 32768 tokens.",
        ),
    ] = None,
    scripted_repeats: Annotated[
        bool,
        ScriptedOption(
            "--scripted-repeats",
            help="Say the last message of a request, or its text, in place of a script: who asks "
            "decides what a model would have written, such as tool calls in the --chat-format.",
        ),
    ] = False,
    metrics_port: options.MetricsPort = 0,
    ready_file: options.ReadyFile = None,
    log_level: options.LogLevel = "info",
    log_format: options.LogFormat = "auto",
) -> None:
    """Run a worker: load a model, attach to the controllers, and serve gateways.

    The worker says "ready" once its model is loaded. Ctrl-C or SIGTERM drains it: it takes nothing
    new, running requests may end within --grace-period, and a second signal ends it at once.

    Examples:

    tokenmesh worker --model examples/demo_model/model

    tokenmesh worker --model Qwen/Qwen3-0.6B --model-names qwen3,default --device cuda --port 0

    tokenmesh worker --model sentence-transformers/all-MiniLM-L6-v2 --port 0

    tokenmesh worker --engine scripted --scripted-token-interval-ms 20 --no-register
    """
    from services.mesh.process import run_service

    def serve_until(stop: asyncio.Event) -> Awaitable[None]:
        from services.worker import engine_choice
        from services.worker.server import serve
        from services.worker.settings import WorkerSettings, read_labels

        shared = engine_choice.shared_settings(
            model_names=model_names,
            max_running=max_running,
            max_waiting=max_waiting,
            context_length=context_length,
        )
        chosen = engine_choice.choose_engine(engine.value, model_path, revision)
        engine_settings = (
            engine_choice.scripted_settings(
                shared,
                prefill_ms=scripted_prefill_ms,
                prefill_token_ms=scripted_prefill_token_ms,
                token_interval_ms=scripted_token_interval_ms,
                answer_tokens=scripted_answer_tokens,
                kv_tokens=scripted_kv_tokens,
                repeats=scripted_repeats,
                chat_format=chat_format,
            )
            if chosen == "scripted"
            else engine_choice.checkpoint_settings(
                chosen,
                shared,
                model_path=model_path,
                revision=revision,
                chat_template=chat_template,
                chat_format=chat_format,
                allow_pickle=allow_pickle,
                trust_remote_code=trust_remote_code,
                device=device,
                dtype=dtype,
                quantization=engine_choice.choose_quantization(
                    quantization, load_8bit=load_8bit, load_4bit=load_4bit
                ),
                gpus=gpus,
                num_gpus=num_gpus,
                threads=threads,
                kv_cache_memory=kv_cache_memory,
                gpu_memory_utilization=gpu_memory_utilization,
                cuda_graphs=not no_cuda_graphs,
                max_gpu_memory=max_gpu_memory,
                cpu_offload=cpu_offload,
                max_cpu_memory=max_cpu_memory,
                offload_folder=offload_folder,
                pooling=pooling,
                batch_tokens=batch_tokens,
                truncates=embed_in_truncate,
            )
        )
        settings = WorkerSettings(
            engine=engine_settings,
            host=host,
            allow_anonymous=allow_anonymous,
            port=port,
            metrics_port=metrics_port,
            ready_file=ready_file,
            controllers=() if no_register else tuple(controller or [options.DEFAULT_CONTROLLER]),
            worker_id=worker_id,
            advertise_address=advertise_address,
            speed=speed,
            labels=read_labels(labels),
            grace_period_s=grace_period,
            hung_step_s=hung_step,
            may_bring_template=trust_request_chat_template,
        )
        return serve(settings, stop)

    run_service("worker", serve_until, log_level=log_level, log_format=log_format)
