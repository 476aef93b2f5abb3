"""Which engine a worker runs, and that engine's settings, from what the command line says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.mesh.errors import StartError
from services.worker.engines.scripted.pace import Pace
from services.worker.engines.scripted.settings import ScriptedSettings
from services.worker.engines.settings import EngineSettings

BYTES_PER_MIB = 1024 * 1024


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
) -> ScriptedSettings:
    """Settings of the scripted engine.

    Raises:
        StartError: a value is out of range; the message names its option.
    """
    pace = Pace(
        prefill_s=prefill_ms / 1000,
        prefill_token_s=prefill_token_ms / 1000,
        token_interval_s=token_interval_ms / 1000,
        answer_tokens=answer_tokens,
    )
    return ScriptedSettings(**shared, pace=pace, **_given(kv_total_tokens=kv_tokens))


def transformers_settings(
    shared: Mapping[str, Any],
    *,
    model_path: str | None,
    revision: str | None,
    device: str,
    dtype: str,
    kv_memory_mib: int | None,
    threads: int | None,
    chat_template: Path | None,
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
        device=device,
        dtype=dtype,
        **_given(
            revision=revision,
            kv_memory_bytes=None if kv_memory_mib is None else kv_memory_mib * BYTES_PER_MIB,
            threads=threads,
            chat_template_path=chat_template,
        ),
    )


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in {None, ()}}
