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
        """Logits in float32, `logit_rows` of each work, in the order of the step.

        May raise whatever a device or a model raises; running the same work again must then give
        what it would have given.
        """
        ...

    def forget(self, sequence: Sequence) -> None:
        """Drops what is kept of a sequence beside its blocks: it ended, or gave its place away.

        Harmless where nothing is kept.
        """
        ...

    def clear(self, blocks: Rows[int]) -> None:
        """Empties blocks of a sequence that failed: what it left may hold NaN."""
        ...
