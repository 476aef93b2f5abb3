"""Brings what the CPU knows to the device, without waiting for what the device computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

_WORD = np.dtype(np.int64)
_ALIGNED_WORDS = 16
"""Arrays begin at multiples of so many words, so that kernels may read whole vectors of each."""


def to_device(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on the device: the same memory where that is the CPU.

    A plain copy to a GPU waits until all that was launched before is computed; one from pinned
    memory is queued behind it. The memory is kept from reuse until then.
    """
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Packing:
    """How arrays lie one behind the other in a row of words, so that one transfer takes all."""

    places: tuple[tuple[int, tuple[int, ...], np.dtype], ...]
    """First word, shape and type of each array."""
    words: int

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray]) -> Packing:
        """For arrays of these shapes and types."""
        places = []
        end = 0
        for array in arrays:
            places.append((end, array.shape, array.dtype))
            words = -(-array.nbytes // _WORD.itemsize)
            end += -(-words // _ALIGNED_WORDS) * _ALIGNED_WORDS
        return cls(tuple(places), max(end, _ALIGNED_WORDS))

    def pack(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """The row of words."""
        packed = np.zeros(self.words, dtype=_WORD)
        for (start, _, dtype), array in zip(self.places, arrays, strict=True):
            packed.view(dtype)[self._reach(start, array.shape, dtype)] = array.ravel()
        return packed

    def unpack(self, packed: torch.Tensor) -> list[torch.Tensor]:
        """The arrays as views of a row of words, on its device."""
        tensors = []
        for start, shape, dtype in self.places:
            kind = torch.from_numpy(np.empty(0, dtype=dtype)).dtype
            part = packed.view(kind)[self._reach(start, shape, dtype)]
            tensors.append(part.view(shape))
        return tensors

    @staticmethod
    def _reach(start: int, shape: tuple[int, ...], dtype: np.dtype) -> slice:
        first = start * _WORD.itemsize // dtype.itemsize
        return slice(first, first + int(np.prod(shape)))


def to_device_at_once(arrays: Sequence[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """The arrays on the device, brought over in one transfer; on the CPU, their own memory."""
    if device.type == "cpu":
        return [torch.from_numpy(array) for array in arrays]
    packing = Packing.of(arrays)
    return packing.unpack(to_device(packing.pack(arrays), device))
