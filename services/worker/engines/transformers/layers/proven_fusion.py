"""Makes a model's linear layers fast where that is seen to change nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
import torch

from services.mesh.errors import StartError
from services.worker.engines.transformers.layers.fusion import fuse_linears, restore_linears
from services.worker.engines.transformers.layers.products import Int8Product, fastest_product

log = structlog.get_logger()


def fuse_if_same(
    model: torch.nn.Module,
    groups: Sequence[Sequence[str]],
    *,
    rounds: bool,
    compute: Callable[[], torch.Tensor],
    reference: torch.Tensor,
    tolerance: float,
) -> None:
    """Fuses linear layers, and makes them plain again where the model then computes otherwise.

    Args:
        model: whose layers they are.
        groups: their names, as `shared_inputs` groups them.
        rounds: whether to round their weights to int8.
        compute: what the model makes of a probe.
        reference: what it made of it before.
        tolerance: how far the two may differ, relative to the reference.

    Raises:
        StartError: rounded, the model computes something else.
    """
    fuse_linears(model, groups, Int8Product if rounds else fastest_product)
    try:
        difference = relative_difference(compute(), reference)
    except Exception:
        # Whatever it is: unfused, the model has run.
        log.debug("cannot run with fused layers", exc_info=True)
        difference = float("inf")
    if difference <= tolerance:
        return
    if rounds:
        raise StartError(
            f"--quantization int8 changes what this model computes by {difference:.0%}: leave it "
            "out"
        )
    log.info("linear layers stay as they are: fused, they compute something else")
    restore_linears(model)


def relative_difference(computed: torch.Tensor, reference: torch.Tensor) -> float:
    """How far two results lie apart, relative to the second."""
    return float((computed - reference).norm() / reference.norm())
