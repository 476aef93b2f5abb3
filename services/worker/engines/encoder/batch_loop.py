"""The engine's thread: takes the rows that wait, batch by batch, and hands out the results."""

from __future__ import annotations

import math
import queue
import time
import traceback
from collections.abc import Callable, Sequence

import structlog
import torch

from services.mesh.errors import (
    DeadlineError,
    InternalError,
    MeshError,
    OutOfMemoryError,
    UnavailableError,
)
from services.worker.engines.base import EngineCounters
from services.worker.engines.encoder.backlog import Backlog, Place
from services.worker.engines.encoder.job import Job
from services.worker.engines.encoder.model import RowModel
from services.worker.engines.transformers.recovery import PassSize, is_out_of_memory

log = structlog.get_logger()

Commands = queue.SimpleQueue[Job | None]
"""Jobs to compute; None ends the loop."""


class BatchLoop:
    """Computes jobs until it is told to stop.

    Args:
        commands: what is asked.
        model: computes rows.
        batch_tokens: of one forward pass, padding included.
        release: gives memory that is kept for reuse back to the device.
    """

    def __init__(
        self,
        commands: Commands,
        model: RowModel,
        *,
        batch_tokens: int,
        release: Callable[[], None],
    ) -> None:
        self._commands = commands
        self._model = model
        self._batch_tokens = batch_tokens
        self._release = release
        self._backlog = Backlog()
        self._size = PassSize()
        self._batches = 0
        self._forward_s = 0.0
        self._ran_out = 0
        self.tokens = 0
        """Computed since the start, padding not counted."""
        self.running = 0
        """Jobs that have rows in the batch that is computed just now."""

    def counters(self) -> EngineCounters:
        """What it has done. From any thread."""
        return EngineCounters(
            steps=self._batches,
            prefilled_tokens=self.tokens,
            phase_s={"forward": self._forward_s},
            out_of_memory=self._ran_out,
        )

    def run(self) -> None:
        """Runs until it is told to stop. Jobs that are left then fail."""
        while self._take_commands():
            self._expire(time.monotonic())
            limit = min(self._batch_tokens, self._size.tokens or self._batch_tokens)
            batch = self._backlog.next_batch(limit)
            if batch:
                self.running = len({each.job for each in batch})
                self._compute(batch)
                self.running = 0
        for job in self._backlog.waiting():
            job.fail(UnavailableError("the engine is stopping"))

    def _take_commands(self) -> bool:
        """Takes what is asked, and waits where there is nothing to do. False at the end."""
        is_idle = not self._backlog.jobs
        while True:
            try:
                command = self._commands.get(block=is_idle)
            except queue.Empty:
                return True
            if command is None:
                return False
            self._backlog.add(command)
            is_idle = False

    def _expire(self, now_s: float) -> None:
        for job in self._backlog.waiting():
            if job.deadline_s is not None and job.deadline_s <= now_s:
                job.fail(DeadlineError("the call's deadline passed while it waited"))

    def _compute(self, batch: Sequence[Place]) -> None:
        """Computes rows in one pass; in halves, and these again, where that fails."""
        results = self._attempt(batch)
        if not isinstance(results, Exception):
            self._size.went_well()
            self._hand_out(batch, results)
            return
        log.warning("a batch failed", rows=len(batch), error=repr(results))
        fitting = self._in_halves(batch, results)
        if is_out_of_memory(results) and fitting:
            self._size.ran_out(_padded_tokens(batch), fitting)
            log.warning("memory ran out: batches are smaller for a while", tokens=fitting)

    def _in_halves(self, batch: Sequence[Place], error: Exception) -> int:
        """Computes a batch that failed, in parts. Returns the tokens of the largest that did not
        fail."""
        if len(batch) == 1:
            batch[0].job.fail(_failure(error, len(batch[0].row)))
            return 0
        fitting = 0
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            results = self._attempt(half)
            if isinstance(results, Exception):
                fitting = max(fitting, self._in_halves(half, results))
            else:
                self._hand_out(half, results)
                fitting = max(fitting, _padded_tokens(half))
        return fitting

    def _attempt(self, batch: Sequence[Place]) -> torch.Tensor | Exception:
        began_s = time.perf_counter()
        try:
            return self._model.compute([each.row for each in batch])
        except Exception as error:
            if is_out_of_memory(error):
                self._ran_out += 1
                # The frames hold the tensors of the pass that failed.
                traceback.clear_frames(error.__traceback__)
                self._release()
            else:
                log.error("cannot compute rows", rows=len(batch), exc_info=error)
            return error
        finally:
            self._batches += 1
            self._forward_s += time.perf_counter() - began_s

    def _hand_out(self, batch: Sequence[Place], results: torch.Tensor) -> None:
        """Gives each job its results. One that is no number fails its job alone."""
        for place, result, total in zip(batch, results, results.sum(1).tolist(), strict=True):
            self.tokens += place.length
            if math.isfinite(total):
                place.job.take(place.at, result)
            else:
                place.job.fail(
                    InternalError("the model makes no numbers of one of the texts of this call")
                )


def _padded_tokens(batch: Sequence[Place]) -> int:
    return len(batch) * max(each.length for each in batch)


def _failure(error: Exception, tokens: int) -> MeshError:
    if is_out_of_memory(error):
        return OutOfMemoryError(
            f"a text of {tokens} tokens does not fit the device's memory, even alone"
        )
    return InternalError("the model cannot compute one of the texts of this call")
