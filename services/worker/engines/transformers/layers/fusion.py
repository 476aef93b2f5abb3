"""Computes linear layers that share their input in one multiplication.

Which layers do is seen, not known: a forward pass tells which layers of a module were given the
same tensor, such as those of queries, keys and values, or of gate and up. So it works for models
that nobody here has heard of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers.pytorch_utils import Conv1D

from services.worker.engines.transformers.layers.products import Product

MakeProduct = Callable[[torch.Tensor, torch.Tensor | None], Product]


class SharedProduct:
    """One multiplication for several layers, which ask for their parts one after another."""

    def __init__(self, product: Product, layers: int) -> None:
        self.product = product
        self._layers = layers
        self._rows: torch.Tensor | None = None
        self._result: torch.Tensor
        self._left = 0

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """The product of `rows`, computed when the first layer asks and kept until the last has."""
        if rows is not self._rows or self._left == 0:
            self._rows, self._result, self._left = rows, self.product(rows), self._layers
        self._left -= 1
        result = self._result
        if self._left == 0:
            self._rows = None
            del self._result
        return result


class FusedLinear(torch.nn.Module):
    """Stands in for a linear layer: the outputs from `start` up to `end` of a shared product."""

    def __init__(self, shared: SharedProduct, start: int, end: int) -> None:
        super().__init__()
        self.shared = shared
        self.part = slice(start, end)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """`[..., end - start]` of `[..., inputs]`."""
        return self.shared.of(rows)[..., self.part]


class SoleLinear(torch.nn.Module):
    """Stands in for a linear layer that shares its input with none."""

    def __init__(self, product: Product) -> None:
        super().__init__()
        self.product = product

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """`[..., outputs]` of `[..., inputs]`."""
        return self.product(rows)


@contextmanager
def shared_inputs(model: torch.nn.Module) -> Iterator[list[list[str]]]:
    """Within it, a forward pass fills the list: names of linear layers, grouped by their input."""
    groups: list[list[str]] = []
    last: tuple[str, torch.Tensor] | None = None

    def note(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            nonlocal last
            key = (name.rpartition(".")[0], given[0])
            if last is not None and last[0] == key[0] and last[1] is key[1]:
                groups[-1].append(name)
            else:
                groups.append([name])
            last = key

        return hook

    hooks = [
        module.register_forward_pre_hook(note(name))
        for name, module in model.named_modules()
        if _is_linear(module)
    ]
    try:
        yield groups
    finally:
        for hook in hooks:
            hook.remove()


def fuse_linears(
    model: torch.nn.Module, groups: Sequence[Sequence[str]], make: MakeProduct
) -> None:
    """Replaces linear layers by products of their groups' joined weights.

    Frees the weights of each group before it goes on to the next.
    """
    seen: set[str] = set()
    for group in groups:
        if seen.isdisjoint(group):
            _fuse(model, group, make)
        seen.update(group)


def restore_linears(model: torch.nn.Module) -> None:
    """Makes plain linear layers of what `fuse_linears` put in their place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, SoleLinear):
            model.set_submodule(name, _linear(module.product.weight, module.product.bias))
        elif isinstance(module, FusedLinear):
            product, part = module.shared.product, module.part
            bias = None if product.bias is None else product.bias[part]
            model.set_submodule(name, _linear(product.weight[part], bias))


def weight_bytes(model: torch.nn.Module) -> int:
    """Memory of a model's weights, those of fused layers included."""
    products = {each.product for each in model.modules() if isinstance(each, SoleLinear)}
    products |= {each.shared.product for each in model.modules() if isinstance(each, FusedLinear)}
    own = sum(each.nbytes for each in model.parameters())
    return own + sum(each.nbytes for each in products)


def _is_linear(module: torch.nn.Module) -> bool:
    # Subclasses compute otherwise, as those of quantized weights.
    return type(module) in (torch.nn.Linear, Conv1D) and not hasattr(module, "_hf_hook")


@torch.no_grad()
def _fuse(model: torch.nn.Module, names: Sequence[str], make: MakeProduct) -> None:
    layers = [model.get_submodule(name) for name in names]
    weights = [_weight(layer) for layer in layers]
    biases = [_bias(layer) for layer in layers]
    if len(layers) == 1:
        sole = SoleLinear(make(weights[0].detach(), biases[0]))
        model.set_submodule(names[0], sole)
        return
    bias = None
    if any(each is not None for each in biases):
        bias = torch.cat(
            [
                weight.new_zeros(len(weight)) if each is None else each
                for weight, each in zip(weights, biases, strict=True)
            ]
        )
    shared = SharedProduct(make(torch.cat(weights), bias), len(layers))
    start = 0
    for name, weight in zip(names, weights, strict=True):
        model.set_submodule(name, FusedLinear(shared, start, start + len(weight)))
        start += len(weight)


def _weight(layer: torch.nn.Module) -> torch.Tensor:
    """`[outputs, inputs]`."""
    assert isinstance(layer.weight, torch.Tensor)
    return layer.weight.t().contiguous() if isinstance(layer, Conv1D) else layer.weight


def _bias(layer: torch.nn.Module) -> torch.Tensor | None:
    return layer.bias.detach() if isinstance(layer.bias, torch.Tensor) else None


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Linear:
    outputs, inputs = weight.shape
    layer = torch.nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    return layer
