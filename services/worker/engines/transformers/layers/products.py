"""Ways to multiply rows by a weight matrix.

On a CPU oneDNN, given weights that it has rearranged once, is up to three times as fast as what
`torch.nn.functional.linear` calls there (docs/adr/0019-own-kernels-on-cpu.md has the figures).
"""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812

_INT8_MAX = 127
_REDUCES_RANGE = not torch.cpu._is_vnni_supported()
_EXPECTED_ROWS = 32
"""Rows for which weights are arranged: a step of a busy engine. Others work as well."""

_PACKING = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")


class Product(Protocol):
    """Multiplies by one weight matrix, and adds its bias."""

    bias: torch.Tensor | None
    nbytes: int
    """Memory of the weight."""

    @property
    def weight(self) -> torch.Tensor:
        """`[outputs, inputs]`. May be a copy."""
        ...

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """`[..., outputs]` of `[..., inputs]`."""
        ...


class PlainProduct:
    """torch's own.

    Args:
        weight: `[outputs, inputs]`.
        bias: `[outputs]`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = weight
        self.bias = bias
        self.nbytes = weight.nbytes

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """`[..., outputs]` of `[..., inputs]`."""
        return F.linear(rows, self.weight, self.bias)


class PackedProduct:
    """oneDNN's, over weights in its own arrangement. For float32 and bfloat16 on a CPU.

    Args:
        weight: `[outputs, inputs]`.
        bias: `[outputs]`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        operations = torch.ops.mkldnn
        self._packed = operations._reorder_linear_weight(weight, _EXPECTED_ROWS)
        self._multiply = operations._linear_pointwise
        self.bias = bias
        self.nbytes = weight.nbytes

    @property
    def weight(self) -> torch.Tensor:
        """`[outputs, inputs]`: a copy."""
        weight: torch.Tensor = self._packed.to_dense()
        return weight

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """`[..., outputs]` of `[..., inputs]`."""
        if rows.shape.numel() != rows.shape[-1]:
            return self._product(rows)
        # oneDNN may divide the sums of a row that is alone among threads. In company it comes out
        # as it does beside any others, so that no token depends on how many sequences run.
        pair = self._product(rows.expand(*rows.shape[:-2], 2, rows.shape[-1]).contiguous())
        return pair[..., :1, :]

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self._multiply(rows, self._packed, self.bias, "none", [], "")
        return product


class Int8Product:
    """Both sides in eight bits: weights rounded once, by output; rows as they come, as a whole.

    Half the memory of bfloat16, and faster for few rows, whose time is that of reading weights: see
    the engine's results in benchmarks/. All rows of a step share one scale, so a token may depend a
    little on the sequences beside it. For CPUs. See `torch.ao.quantization`, "dynamic
    quantization".

    Args:
        weight: `[outputs, inputs]`.
        bias: `[outputs]`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        scales = weight.abs().amax(1).clamp(min=1e-8).double() / _INT8_MAX
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            # torch will move these types to another package some day.
            warnings.simplefilter("ignore", UserWarning)
            rounded = torch.quantize_per_channel(weight.float(), scales, zeros, 0, torch.qint8)
        self.bias = bias
        self.nbytes = weight.numel()
        operations = torch.ops.quantized
        self._packed = operations.linear_prepack(rounded, None if bias is None else bias.float())
        self._multiply = operations.linear_dynamic

    @property
    def weight(self) -> torch.Tensor:
        """`[outputs, inputs]`: a copy, as it was rounded."""
        rounded, _ = torch.ops.quantized.linear_unpack(self._packed)
        weight: torch.Tensor = rounded.dequantize()
        return weight

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """`[..., outputs]` of `[..., inputs]`."""
        # A reduced range is for CPUs without VNNI, whose sums of products overflow.
        product: torch.Tensor = self._multiply(rows.float(), self._packed, _REDUCES_RANGE)
        return product.to(rows.dtype)


def fastest_product(weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
    """The fastest way to multiply by a weight, on the device where it is."""
    if weight.device.type == "cpu" and _can_pack(weight.dtype):
        return PackedProduct(weight, bias)
    return PlainProduct(weight, bias)


def _can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there for a type, and this torch has the private operations of it."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    operations = torch.ops.mkldnn
    if not all(hasattr(operations, each) for each in _PACKING):
        return False
    if dtype == torch.bfloat16:
        return bool(operations._is_mkldnn_bf16_supported())
    return dtype == torch.float32
