"""Ways to multiply rows by a weight matrix.

On a CPU oneDNN, given weights that it has rearranged once, is two to five times as fast as what
`torch.nn.functional.linear` calls there (docs/adr/0012-own-kernels-on-cpu.md has the figures).
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812

_EXPECTED_ROWS = 32
"""Rows for which weights are arranged: a step of a busy engine. Others work as well."""


class Product(Protocol):
    """Multiplies by one weight matrix, and adds its bias."""

    bias: torch.Tensor | None

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

    @property
    def weight(self) -> torch.Tensor:
        """`[outputs, inputs]`: a copy."""
        weight: torch.Tensor = self._packed.to_dense()
        return weight

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """`[..., outputs]` of `[..., inputs]`."""
        product: torch.Tensor = self._multiply(rows, self._packed, self.bias, "none", [], "")
        return product


def fastest_product(weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
    """The fastest way to multiply by a weight, on the device where it is."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return PlainProduct(weight, bias)
    if weight.dtype == torch.float32:
        return PackedProduct(weight, bias)
    if weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return PackedProduct(weight, bias)
    return PlainProduct(weight, bias)
