"""Which engine a worker runs, and that engine's settings, from what the command line says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.mesh.errors import StartError
from services.worker.chat_formats.names import AUTO, by_name
from services.worker.engines.byte_sizes import read_bytes
from services.worker.engines.encoder.settings import MAX_RUNNING, MAX_WAITING, EncoderSettings
from services.worker.engines.recognition import ENCODER, recognize_engine
from services.worker.engines.scripted.pace import Pace
from services.worker.engines.scripted.settings import ScriptedSettings
from services.worker.engines.settings import EngineSettings


def shared_settings(
    *,
    model_names: str,
    max_running: int | None,
    max_waiting: int | None,
    context_length: int | None,
) -> Mapping[str, Any]:
    """Those settings that every engine has. What is not given is left to the engine's defaults."""
    return _given(
        model_names=tuple(each.strip() for each in model_names.split(",") if model_names),
        max_running=max_running,
        max_waiting=max_waiting,
        context_length_tokens=context_length,
    )


def scripted_settings(
    shared: Mapping[str, Any],
    *,
    prefill_ms: float,
    prefill_token_ms: float,
    token_interval_ms: float,
    answer_tokens: int,
    kv_tokens: int | None,
    repeats: bool,
    chat_format: str,
) -> ScriptedSettings:
    """Settings of the scripted engine. It has no chat template that could tell its chat format.

    Raises:
        StartError: a value is out of range; the message names its option.
    """
    pace = Pace(
        prefill_s=prefill_ms / 1000,
        prefill_token_s=prefill_token_ms / 1000,
        token_interval_s=token_interval_ms / 1000,
        answer_tokens=answer_tokens,
    )
    return ScriptedSettings(
        **shared,
        pace=pace,
        repeats=repeats,
        chat_format=None if chat_format == AUTO else by_name(chat_format),
        **_given(kv_total_tokens=kv_tokens),
    )


def choose_engine(asked: str, model_path: str | None, revision: str | None) -> str:
    """The engine that was asked for; for "auto", that which the checkpoint is for."""
    return recognize_engine(model_path or "", revision) if asked == "auto" else asked


def checkpoint_settings(
    engine: str,
    shared: Mapping[str, Any],
    *,
    pooling: str,
    batch_tokens: int | None,
    truncates: bool,
    **given: Any,
) -> EngineSettings | EncoderSettings:
    """Settings of an engine that loads checkpoints: `given` as `transformers_settings` takes them.

    Raises:
        StartError: there is no checkpoint, or a value is out of range; the message names it.
    """
    if engine != ENCODER:
        if pooling != "auto" or batch_tokens is not None or truncates:
            raise StartError(
                "--pooling, --batch-tokens and --embed-in-truncate are of the encoder engine, and "
                f"the {engine} engine runs this checkpoint: say --engine encoder, or leave them out"
            )
        return transformers_settings(shared, **given)
    calls = {"max_running": MAX_RUNNING, "max_waiting": MAX_WAITING}
    return EncoderSettings(
        transformers_settings(calls | dict(shared), **given),
        batch_tokens=batch_tokens,
        pooling=pooling,
        truncates=truncates,
    )


def transformers_settings(
    shared: Mapping[str, Any],
    *,
    model_path: str | None,
    revision: str | None,
    chat_template: Path | None,
    chat_format: str,
    allow_pickle: bool,
    trust_remote_code: bool,
    device: str,
    dtype: str,
    quantization: str | None,
    gpus: str,
    num_gpus: int | None,
    threads: int | None,
    kv_cache_memory: str | None,
    gpu_memory_utilization: float,
    cuda_graphs: bool,
    max_gpu_memory: str | None,
    cpu_offload: bool,
    max_cpu_memory: str | None,
    offload_folder: Path | None,
) -> EngineSettings:
    """Settings of the engine that loads checkpoints.

    Raises:
        StartError: there is no checkpoint, or a value is out of range; the message names it.
    """
    if not model_path:
        raise StartError(
            "--model-path is missing: give a folder or a Hugging Face hub id, or --engine scripted"
        )
    return EngineSettings(
        **shared,
        model_path=model_path,
        chat_format=chat_format,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
        device=device,
        dtype=dtype,
        gpus=tuple(each.strip() for each in gpus.split(",") if gpus.strip()),
        cpu_offload=cpu_offload,
        gpu_memory_utilization=gpu_memory_utilization,
        cuda_graphs=cuda_graphs,
        **_given(
            revision=revision,
            chat_template_path=chat_template,
            quantization=quantization,
            num_gpus=num_gpus,
            threads=threads,
            kv_memory_bytes=_bytes("--kv-cache-memory", kv_cache_memory),
            max_gpu_memory_bytes=_bytes("--max-gpu-memory", max_gpu_memory),
            max_cpu_memory_bytes=_bytes("--max-cpu-memory", max_cpu_memory),
            offload_folder=offload_folder,
        ),
    )


def choose_quantization(
    quantization: str | None, *, load_8bit: bool, load_4bit: bool
) -> str | None:
    """The one quantization that the options name; None where none does.

    Raises:
        StartError: they name several.
    """
    named = [
        *([quantization] if quantization else []),
        *(["8bit"] if load_8bit else []),
        *(["4bit"] if load_4bit else []),
    ]
    if len(set(named)) > 1:
        raise StartError(
            f"weights can be shrunk in one way, and the options name {' and '.join(named)}: leave "
            "one of --quantization, --load-8bit and --load-4bit"
        )
    return named[0] if named else None


def _bytes(option: str, text: str | None) -> int | None:
    return None if text is None else read_bytes(option, text)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, ())}
