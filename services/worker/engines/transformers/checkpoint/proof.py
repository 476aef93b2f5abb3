"""Makes a loaded checkpoint ready to run in steps, and proves that it computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
import torch

from services.mesh.errors import StartError
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.attention.function import (
    ATTENTION_NAME,
    shape_recording,
)
from services.worker.engines.transformers.attention.kv_cache import KVCache
from services.worker.engines.transformers.attention.layout import Span, StepLayout
from services.worker.engines.transformers.checkpoint.device import kv_budget_bytes, kv_dtype
from services.worker.engines.transformers.checkpoint.loading import Checkpoint
from services.worker.engines.transformers.checkpoint.memory import (
    LayerShape,
    MemoryPlan,
    plan_memory,
)
from services.worker.engines.transformers.model_runner import ModelRunner

log = structlog.get_logger()

_PROBE_TOKENS = 8
_TOLERANCE = {torch.float32: 1e-3}
_TOLERANCE_16_BIT = 0.1


@dataclass(frozen=True)
class LoadedModel:
    """A model that runs in steps."""

    runner: ModelRunner
    plan: MemoryPlan
    vocabulary_size: int


def prepare_model(checkpoint: Checkpoint, settings: EngineSettings) -> LoadedModel:
    """Replaces the model's attention, plans and takes the KV cache, and compares logits.

    Raises:
        StartError: the model's attention cannot be replaced, the KV cache does not fit, or the
            model computes something else in steps than by itself.
    """
    model_type = checkpoint.model.config.model_type
    probe = _probe_tokens(checkpoint)
    reference = _logits(checkpoint, probe)
    layers = _replace_attention(checkpoint, probe)
    dtype = kv_dtype(checkpoint.device, checkpoint.dtype)
    plan = plan_memory(
        layers,
        value_bytes=dtype.itemsize,
        budget_bytes=settings.kv_memory_bytes or kv_budget_bytes(checkpoint.device),
        max_running=settings.max_running,
        model_context_tokens=checkpoint.context_length_tokens,
        context_length_tokens=settings.context_length_tokens,
    )
    cache = KVCache(layers, plan, dtype, checkpoint.device)
    runner = ModelRunner(checkpoint.model, cache, checkpoint.device)
    try:
        difference = _step_difference(runner, probe, reference, checkpoint.device)
    except Exception as error:
        log.debug("cannot run in steps", exc_info=True)
        raise StartError(
            f"model type {model_type!r} is not supported: it does not run in steps: {error!r}"
        ) from error
    if not difference <= _TOLERANCE.get(checkpoint.dtype, _TOLERANCE_16_BIT):
        raise StartError(
            f"model type {model_type!r} is not supported: run in steps, its logits differ by "
            f"{difference:.1%} from what the model computes by itself"
        )
    _log_plan(checkpoint, plan, settings)
    return LoadedModel(runner, plan, min(reference.shape[-1], _embedded_tokens(checkpoint)))


def _probe_tokens(checkpoint: Checkpoint) -> list[int]:
    size = _embedded_tokens(checkpoint)
    return [(7 + 13 * place) % size for place in range(_PROBE_TOKENS)]


def _embedded_tokens(checkpoint: Checkpoint) -> int:
    return int(checkpoint.model.get_input_embeddings().weight.shape[0])


@torch.inference_mode()
def _logits(checkpoint: Checkpoint, token_ids: Sequence[int]) -> torch.Tensor:
    """What the model computes by itself, with whatever attention it has now."""
    row = torch.tensor([token_ids], device=checkpoint.device)
    try:
        logits: torch.Tensor = checkpoint.model(input_ids=row, use_cache=False).logits
    except Exception as error:
        raise StartError(
            f"model type {checkpoint.model.config.model_type!r} does not run: {error}"
        ) from error
    return logits[0].float()


def _replace_attention(checkpoint: Checkpoint, probe: Sequence[int]) -> list[LayerShape]:
    """Puts ours in the attention's place. Returns what each layer will keep of a token."""
    model = checkpoint.model
    refusal = StartError(
        f"model type {model.config.model_type!r} is not supported: its attention cannot be "
        "replaced, which continuous batching needs"
    )
    if not model._can_set_attn_implementation():
        raise refusal
    model.set_attn_implementation(ATTENTION_NAME)
    with shape_recording() as layers:
        _logits(checkpoint, probe)
    if not layers or len({layer.layer for layer in layers}) < len(layers):
        raise refusal
    return list(layers)


def _step_difference(
    runner: ModelRunner, probe: Sequence[int], reference: torch.Tensor, device: torch.device
) -> float:
    """Runs the probe as steps: a prefill, another piece of it, a decode. Relative difference."""
    middle, last = len(probe) // 2, len(probe) - 1
    first = StepLayout([], [], [Span(0, 0, 0, middle)], device)
    second = StepLayout([], [], [Span(0, middle, 0, last - middle)], device)
    third = StepLayout([0], [last], [], device)
    computed = torch.cat(
        [
            runner.forward(probe[:middle], first, range(middle)),
            runner.forward(probe[middle:last], second, range(last - middle)),
            runner.forward(probe[last:], third, [0]),
        ]
    )
    return float((computed - reference).norm() / reference.norm())


def _log_plan(checkpoint: Checkpoint, plan: MemoryPlan, settings: EngineSettings) -> None:
    table = plan.table(str(checkpoint.device), checkpoint.weight_bytes)
    log.info("memory\n" + table)
    if plan.context_length_tokens < (
        settings.context_length_tokens or checkpoint.context_length_tokens
    ):
        log.warning(
            "context shortened to fit the KV memory",
            context_length_tokens=plan.context_length_tokens,
            model_context_tokens=checkpoint.context_length_tokens,
        )
    if plan.slots < settings.max_running:
        log.warning(
            "fewer sequences run at once than max_running, to fit the KV memory",
            running=plan.slots,
            max_running=settings.max_running,
        )
