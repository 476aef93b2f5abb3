"""Makes a loaded checkpoint ready to run one sequence after another."""

from __future__ import annotations

import structlog

from services.mesh.errors import StartError
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.checkpoint.device import kv_budget_bytes
from services.worker.engines.transformers.checkpoint.loading import Checkpoint
from services.worker.engines.transformers.checkpoint.memory import MIB, LayerShape, plan_memory
from services.worker.engines.transformers.checkpoint.proof import (
    LoadedModel,
    embedded_tokens,
    log_plan,
)
from services.worker.engines.transformers.serial.probe import probe
from services.worker.engines.transformers.serial.runner import SerialRunner

log = structlog.get_logger()

_REPLAY_TOLERANCE = 0.1


def prepare_serial(checkpoint: Checkpoint, settings: EngineSettings) -> LoadedModel:
    """Measures what the model keeps of a sequence, and plans how many may run.

    Raises:
        StartError: the model does not generate, or not one sequence fits the memory.
    """
    model_type = checkpoint.model.config.model_type
    vocabulary_size = embedded_tokens(checkpoint)
    try:
        measured = probe(checkpoint.model, vocabulary_size)
    except Exception as error:
        log.debug("cannot generate", exc_info=True)
        raise StartError(f"model type {model_type!r} does not generate: {error!r}") from error
    if not measured.replay_difference <= _REPLAY_TOLERANCE:
        raise StartError(
            f"model type {model_type!r} is not supported: its logits differ by "
            f"{measured.replay_difference:.1%} when its tokens are computed "
            "beside another sequence's"
        )
    footprint = measured.footprint
    budget_bytes = settings.kv_memory_bytes or kv_budget_bytes(
        checkpoint.device, settings.gpu_memory_utilization
    )
    running = settings.max_running
    if footprint.fixed_bytes:
        # Half of the memory at most, so that tokens find room, too.
        running = min(running, budget_bytes // 2 // footprint.fixed_bytes)
    if running < 1:
        raise StartError(
            f"each sequence keeps {footprint.fixed_bytes / MIB:,.0f} MiB beside its tokens, and "
            f"all may take {budget_bytes / MIB:,.0f} MiB: raise --kv-cache-memory"
        )
    plan = plan_memory(
        [LayerShape(0, 1, footprint.token_bytes, 0)],
        value_bytes=1,
        budget_bytes=budget_bytes - running * footprint.fixed_bytes,
        max_running=running,
        model_context_tokens=checkpoint.context_length_tokens,
        context_length_tokens=settings.context_length_tokens,
    )
    log_plan(checkpoint, plan, settings)
    size = min(measured.logits_size, vocabulary_size)
    runner = SerialRunner(checkpoint.model, measured.modules, size)
    return LoadedModel(runner, plan, size, "serial")
