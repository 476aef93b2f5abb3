"""What a device must be able to do with the blocks of a KV cache, and who does it best."""

from __future__ import annotations

from typing import Protocol

import structlog
import torch

from services.worker.engines.transformers.attention.gathered import GatheredKernels
from services.worker.engines.transformers.attention.kv_cache import LayerCache
from services.worker.engines.transformers.attention.layout import Span, StepLayout
from services.worker.engines.transformers.attention.rule import AttentionRule

log = structlog.get_logger()


class BlockKernels(Protocol):
    """Writes and reads one layer's blocks."""

    def store(
        self, cache: LayerCache, keys: torch.Tensor, values: torch.Tensor, layout: StepLayout
    ) -> None:
        """Puts the keys and values of a step into its blocks: `[tokens, kv heads, size]` each."""
        ...

    def decode(
        self, query: torch.Tensor, cache: LayerCache, layout: StepLayout, rule: AttentionRule
    ) -> torch.Tensor:
        """Attends for the decoding rows: `[rows, heads, value size]`.

        Args:
            query: `[rows, heads, key size]`.
            cache: holds their own keys and values, too.
            layout: their block tables and lengths.
            rule: how keys are weighed.
        """
        ...

    def begin(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: AttentionRule
    ) -> torch.Tensor:
        """Attends for the first piece of a prompt, which sees itself alone: as `prefill`.

        Args:
            query: `[heads, tokens, key size]`.
            key: of the same tokens, `[kv heads, tokens, key size]`.
            value: alike.
            rule: how keys are weighed.
        """
        ...

    def prefill(
        self,
        query: torch.Tensor,
        cache: LayerCache,
        span: Span,
        layout: StepLayout,
        rule: AttentionRule,
    ) -> torch.Tensor:
        """Attends for a later piece of a prompt: `[heads, tokens, value size]`.

        Args:
            query: `[heads, tokens, key size]`.
            cache: holds the piece's own keys and values, too.
            span: the piece.
            layout: the step that it is in.
            rule: how keys are weighed.
        """
        ...


def choose_kernels(device: torch.device, cache_dtype: torch.dtype, threads: int) -> BlockKernels:
    """The fastest on a device."""
    if device.type == "cuda":
        try:
            from services.worker.engines.transformers.attention.triton_kernels import TritonKernels
        except ImportError as error:
            log.warning(
                "Triton is missing, so attention copies blocks together in every step: slower",
                reason=str(error),
            )
            return GatheredKernels()
        return TritonKernels()
    if device.type == "cpu" and cache_dtype in (torch.float32, torch.bfloat16):
        from services.worker.engines.transformers.attention.cpu_kernels import CpuKernels

        return CpuKernels(threads)
    return GatheredKernels()
