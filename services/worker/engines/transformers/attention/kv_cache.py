"""The KV cache: for each layer, keys and values in blocks of tokens.

Which block holds what is the scheduler's business; here are only the tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from services.worker.engines.transformers.checkpoint.memory import LayerShape


class LayerCache:
    """What one layer keeps, in blocks.

    `keys` are `[blocks, kv heads, key size, block tokens]`: a block's keys lie dimension by
    dimension, as scores are computed for many keys at once. `values` are
    `[blocks, kv heads, block tokens, value size]`.

    `key_words` and `value_words` are the same memory for kernels that take NumPy arrays: float32,
    or the bits of bfloat16 as uint16. Only on a CPU.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys = keys
        self.values = values
        if keys.device.type == "cpu":
            self.key_words = words(keys)
            self.value_words = words(values)

    def gather(self, blocks: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of the first `tokens` keys and values of a table: `[kv heads, tokens, size]`."""
        return _join(self.keys[blocks].transpose(2, 3), tokens), _join(self.values[blocks], tokens)


class KVCache:
    """The layers' caches, by layer index.

    `spare_block` is one more block than was asked for: for what belongs to no sequence.
    """

    def __init__(
        self,
        layers: Sequence[LayerShape],
        *,
        blocks: int,
        block_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.block_tokens = block_tokens
        self.device = device
        self.spare_block = blocks
        self.layers: dict[int, LayerCache] = {}
        for layer in layers:
            shape = (blocks + 1, layer.kv_heads)
            self.layers[layer.layer] = LayerCache(
                _zeros((*shape, layer.key_size, block_tokens), dtype, device),
                _zeros((*shape, block_tokens, layer.value_size), dtype, device),
            )

    def clear(self, blocks: Iterable[int]) -> None:
        """Forgets what a failed sequence left: NaN would outlive it, as no mask covers NaN."""
        index = torch.tensor(list(blocks), dtype=torch.long)
        for layer in self.layers.values():
            layer.keys[index] = 0
            layer.values[index] = 0


def words(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a float32 or bfloat16 tensor on a CPU, as float32 or as bits in uint16."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


def _join(blocks: torch.Tensor, tokens: int) -> torch.Tensor:
    """`[blocks, heads, block tokens, size]` as `[heads, tokens, size]`."""
    count, heads, block_tokens, size = blocks.shape
    return blocks.transpose(0, 1).reshape(heads, count * block_tokens, size)[:, :tokens]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros, because masked garbage that happens to be NaN would spoil a sum."""
    if device.type == "cpu":
        # NumPy leaves zeroing to the operating system, page by page on first use: a large cache
        # costs no time at the start, and no memory before it is used.
        size = int(np.prod(shape)) * dtype.itemsize
        return torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(dtype).view(shape)
    return torch.zeros(shape, dtype=dtype, device=device)
