"""The KV cache: for each layer, keys and values in slots of one sequence each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from services.worker.engines.transformers.checkpoint.memory import LayerShape, MemoryPlan


class LayerCache(NamedTuple):
    """What one layer keeps: keys `[slot, kv heads, length, key size]` and values alike."""

    keys: torch.Tensor
    values: torch.Tensor


class KVCache:
    """The layers' caches, by layer index.

    A slot's tokens lie side by side, so that decoding reads the running slots in place.
    """

    def __init__(
        self,
        layers: Sequence[LayerShape],
        plan: MemoryPlan,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.layers: dict[int, LayerCache] = {}
        for layer in layers:
            shape = (plan.slots, layer.kv_heads, plan.context_length_tokens)
            self.layers[layer.layer] = LayerCache(
                _zeros((*shape, layer.key_size), dtype, device),
                _zeros((*shape, layer.value_size), dtype, device),
            )


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros, because masked garbage that happens to be NaN would spoil a sum."""
    if device.type == "cpu" and dtype == torch.float32:
        # NumPy leaves zeroing to the operating system, page by page on first use: a large cache
        # costs no time at the start, and no memory before it is used.
        return torch.from_numpy(np.zeros(shape, dtype=np.float32))
    return torch.zeros(shape, dtype=dtype, device=device)
