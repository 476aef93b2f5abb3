"""Makes a loaded checkpoint ready to run in batches, and proves that it computes the same."""

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
from services.worker.engines.transformers.attention.kernels import choose_kernels
from services.worker.engines.transformers.attention.kv_cache import KVCache
from services.worker.engines.transformers.attention.layout import Piece
from services.worker.engines.transformers.checkpoint.device import kv_budget_bytes, kv_dtype
from services.worker.engines.transformers.checkpoint.loading import Checkpoint
from services.worker.engines.transformers.checkpoint.memory import (
    LayerShape,
    MemoryPlan,
    plan_memory,
)
from services.worker.engines.transformers.checkpoint.quantization import INT8
from services.worker.engines.transformers.checkpoint.windows import untold_windows
from services.worker.engines.transformers.decode_graphs import CudaRecorder
from services.worker.engines.transformers.layers.fusion import shared_inputs
from services.worker.engines.transformers.layers.proven_fusion import (
    fuse_if_same,
    relative_difference,
)
from services.worker.engines.transformers.model_runner import ModelRunner
from services.worker.engines.transformers.runner import Runner

log = structlog.get_logger()

_PROBE_TOKENS = 8
_TOLERANCE = {torch.float32: 1e-3}
_TOLERANCE_16_BIT = 0.1


class NotPagedError(Exception):
    """The model cannot run over the paged cache. Says why."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that runs in steps."""

    runner: Runner
    plan: MemoryPlan
    vocabulary_size: int
    execution: str
    """See ModelDescription."""


def prepare_model(checkpoint: Checkpoint, settings: EngineSettings) -> LoadedModel:
    """Replaces the model's attention, plans and takes the KV cache, and compares logits.

    Raises:
        NotPagedError: the model's attention cannot be replaced, or the model computes something
            else in steps than by itself.
        StartError: the model does not run at all, or the KV cache does not fit.
    """
    probe = _probe_tokens(checkpoint)
    with shared_inputs(checkpoint.model) as groups:
        reference = _logits(checkpoint, probe)
    _fuse(checkpoint, groups, probe, reference)
    layers = _replace_attention(checkpoint, probe)
    dtype = kv_dtype(checkpoint.device, checkpoint.dtype)
    plan = plan_memory(
        layers,
        value_bytes=dtype.itemsize,
        budget_bytes=settings.kv_memory_bytes
        or kv_budget_bytes(checkpoint.device, settings.gpu_memory_utilization),
        max_running=settings.max_running,
        model_context_tokens=checkpoint.context_length_tokens,
        context_length_tokens=settings.context_length_tokens,
    )
    cache = KVCache(
        layers,
        blocks=plan.blocks,
        block_tokens=plan.block_tokens,
        dtype=dtype,
        device=checkpoint.device,
    )
    kernels = choose_kernels(checkpoint.device, dtype, torch.get_num_threads())
    runner = ModelRunner(checkpoint.model, cache, kernels, checkpoint.device)
    try:
        difference = _step_difference(runner, probe, reference)
    except Exception as error:
        log.debug("cannot run in steps", exc_info=True)
        raise NotPagedError(f"it does not run in steps: {error!r}") from error
    if not difference <= _tolerance(checkpoint):
        raise NotPagedError(
            f"run in steps, its logits differ by {difference:.1%} from what it computes by itself"
        )
    if settings.cuda_graphs and checkpoint.device.type == "cuda" and checkpoint.has_plain_weights:
        runner.record_decoding(
            CudaRecorder(checkpoint.device),
            max_rows=plan.slots,
            context_tokens=plan.context_length_tokens,
        )
    log_plan(checkpoint, plan, settings)
    size = min(reference.shape[-1], embedded_tokens(checkpoint))
    return LoadedModel(runner, plan, size, "paged")


def _probe_tokens(checkpoint: Checkpoint) -> list[int]:
    size = embedded_tokens(checkpoint)
    return [(7 + 13 * place) % size for place in range(_PROBE_TOKENS)]


def embedded_tokens(checkpoint: Checkpoint) -> int:
    """Tokens that the model can read."""
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


def _fuse(
    checkpoint: Checkpoint,
    groups: Sequence[Sequence[str]],
    probe: Sequence[int],
    reference: torch.Tensor,
) -> None:
    """Makes the linear layers fast, and takes that back where they then compute something else.

    Raises:
        StartError: rounded to int8, the model computes something else.
    """
    fuse_if_same(
        checkpoint.model,
        groups,
        rounds=checkpoint.quantization == INT8,
        compute=lambda: _logits(checkpoint, probe),
        reference=reference,
        tolerance=_tolerance(checkpoint),
    )


def _tolerance(checkpoint: Checkpoint) -> float:
    # bitsandbytes rounds inputs by what else is in the step.
    exact = not checkpoint.quantization
    return _TOLERANCE.get(checkpoint.dtype, _TOLERANCE_16_BIT) if exact else _TOLERANCE_16_BIT


def _replace_attention(checkpoint: Checkpoint, probe: Sequence[int]) -> list[LayerShape]:
    """Puts ours in the attention's place. Returns what each layer will keep of a token."""
    model = checkpoint.model
    refusal = NotPagedError("its attention cannot be replaced, which batching needs")
    if not model._can_set_attn_implementation():
        raise refusal
    model.set_attn_implementation(ATTENTION_NAME)
    with shape_recording() as layers:
        _logits(checkpoint, probe)
    if not layers or len({layer.layer for layer in layers}) < len(layers):
        raise refusal
    untold = untold_windows(model.config, layers)
    if untold:
        raise NotPagedError(f"its layers {untold} do not tell their window")
    return list(layers)


def _step_difference(runner: ModelRunner, probe: Sequence[int], reference: torch.Tensor) -> float:
    """Runs the probe as steps: a prefill, another piece of it, a decode. Relative difference."""
    middle, last = len(probe) // 2, len(probe) - 1
    first, second = Piece([0], 0, middle), Piece([0], middle, last - middle)
    computed = torch.cat(
        [
            runner.forward(probe[:middle], [], [first], range(middle)),
            runner.forward(probe[middle:last], [], [second], range(last - middle)),
            runner.forward(probe[last:], [Piece([0], last, 1)], [], [0]),
        ]
    )
    return relative_difference(computed, reference)


def log_plan(checkpoint: Checkpoint, plan: MemoryPlan, settings: EngineSettings) -> None:
    """Prints the plan, and says where it is less than what was asked for."""
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
