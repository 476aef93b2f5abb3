"""A runner on a device with little memory: it computes what fits, and runs out over it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Rows

import torch

from services.worker.engines.transformers.runner import Runner
from services.worker.engines.transformers.scheduling.sequence import Sequence
from services.worker.engines.transformers.scheduling.work import Work


class TightRunner:
    """Hands passes on to a real runner where they fit.

    Args:
        runner: computes.
        fits: whether there is memory for a pass.
        error: raised where there is none.
    """

    def __init__(
        self,
        runner: Runner,
        fits: Callable[[Rows[Work]], bool],
        error: Exception | None = None,
    ) -> None:
        self._runner = runner
        self._error = error or torch.OutOfMemoryError("out of memory")
        self.fits = fits
        self.passes: list[int] = []
        """The tokens of each pass that was tried."""

    def run(self, step: Rows[Work]) -> torch.Tensor:
        self.passes.append(sum(work.tokens for work in step))
        if not self.fits(step):
            raise self._error
        return self._runner.run(step)

    def forget(self, sequence: Sequence) -> None:
        self._runner.forget(sequence)

    def clear(self, blocks: Rows[int]) -> None:
        self._runner.clear(blocks)
