"""What computes steps: the seam between the loop and the ways of running a model."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from services.worker.engines.transformers.scheduling.scheduler import Work
    from services.worker.engines.transformers.scheduling.sequence import Sequence


class Runner(Protocol):
    """Computes steps. For one thread."""

    def run(self, step: Rows[Work]) -> torch.Tensor:
        """Logits `[sampling works, vocabulary]` in float32, in the order of the step.

        May raise whatever a device or a model raises; running the same work again must then give
        what it would have given.
        """
        ...

    def forget(self, sequence: Sequence, *, spoiled: bool = False) -> None:
        """Drops what is kept of a sequence: it ended, or gave its place away.

        Called before the scheduler takes its place, or, where the scheduler preempted it, right
        after. Harmless where nothing is kept.

        Args:
            sequence: runs no more, or starts anew.
            spoiled: it failed, and what it left may hold NaN.
        """
        ...
