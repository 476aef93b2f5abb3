"""What is done when a step fails: it is computed in parts, and only who is at fault fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Rows
from dataclasses import replace

import structlog
import torch

from services.worker.engines.transformers.sampling.step import Outcome
from services.worker.engines.transformers.scheduling.work import Work

log = structlog.get_logger()

Part = tuple[list[Work], list[Outcome] | Exception]
"""Works and what they led to; or one work, and why it cannot be computed."""

_PASSES_TO_GROW = 32
"""Passes that go well before the next may be a quarter larger. Fewer come back to speed sooner;
but each time that they come back too far, a pass is lost and its sequences wait for it."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
"""What allocators, drivers and libraries say whose errors have no type of their own."""


class PassSize:
    """How many tokens one forward pass may compute: any number, and fewer after memory ran out.

    The limit grows again, slowly, and is gone when it comes back to what failed: memory may have
    been short only for a while.
    """

    def __init__(self) -> None:
        self.tokens: int | None = None
        """The limit just now. None: there is none."""
        self._too_many = 0
        self._passes = 0

    def ran_out(self, too_many: int, fitting: int) -> None:
        """A pass of `too_many` tokens ran out of memory, where one of `fitting` did not."""
        self.tokens = fitting
        self._too_many = too_many
        self._passes = 0

    def went_well(self) -> None:
        """A pass within the limit was computed."""
        if self.tokens is None:
            return
        self._passes += 1
        if self._passes < _PASSES_TO_GROW:
            return
        self._passes = 0
        self.tokens += max(1, self.tokens // 4)
        if self.tokens >= self._too_many:
            self.tokens = None

    def divide(self, works: Rows[Work]) -> list[list[Work]]:
        """The works of a step, in order, as passes within the limit.

        A longer piece of a prompt is cut: what is left of it comes in a later step.
        """
        limit = self.tokens
        if limit is None:
            return [list(works)]
        passes: list[list[Work]] = []
        room = 0
        for work in works:
            part = shortened(work, limit) if work.tokens > limit else work
            if part.tokens > room:
                passes.append([])
                room = limit
            passes[-1].append(part)
            room -= part.tokens
        return passes


class Recovery:
    """Computes steps, in as many passes as it takes.

    A pass that fails is divided in halves, and these again: a fault among n sequences is found in
    about 2 log2(n) passes. Where memory ran out, the caches are emptied, a piece of a prompt is cut
    in two where it cannot be computed whole, and later steps stay within what could be computed.
    So no sequence fails but one whose next token alone is too much.

    Args:
        run: computes works in one pass. Running works again gives what it would have given.
        release: gives memory that is kept for reuse back to the device.
    """

    def __init__(
        self, run: Callable[[Rows[Work]], list[Outcome]], release: Callable[[], None]
    ) -> None:
        self._run = run
        self._release = release
        self.size = PassSize()
        self.out_of_memory = 0
        """Passes that ran out of memory, since the start."""

    def compute(self, works: Rows[Work]) -> Iterator[Part]:
        """Parts of a step. Each is to be booked before the next one is asked for."""
        for one_pass in self.size.divide(works):
            yield from self._compute(one_pass)

    def _compute(self, works: list[Work]) -> Iterator[Part]:
        outcomes = self._attempt(works)
        if not isinstance(outcomes, Exception):
            self.size.went_well()
            yield works, outcomes
            return
        log.warning("a step failed", sequences=len(works), error=repr(outcomes))
        ran_out = is_out_of_memory(outcomes)
        fitting = 0
        for part, result in self._in_halves(works, outcomes):
            if not isinstance(result, Exception):
                fitting = max(fitting, tokens_of(part))
            yield part, result
        if ran_out and fitting:
            self.size.ran_out(tokens_of(works), fitting)
            log.warning("memory ran out: steps are smaller for a while", tokens=fitting)

    def _in_halves(self, works: list[Work], error: Exception) -> Iterator[Part]:
        """What comes of works of which a pass has failed."""
        if len(works) > 1:
            middle = len(works) // 2
            halves = [works[:middle], works[middle:]]
        elif is_out_of_memory(error) and works[0].tokens > 1:
            halves = [[shortened(works[0], works[0].tokens // 2)]]
        else:
            yield works, error
            return
        for half in halves:
            outcomes = self._attempt(half)
            if isinstance(outcomes, Exception):
                yield from self._in_halves(half, outcomes)
            else:
                yield half, outcomes

    def _attempt(self, works: list[Work]) -> list[Outcome] | Exception:
        try:
            return self._run(works)
        except Exception as error:
            if is_out_of_memory(error):
                self.out_of_memory += 1
                # The frames hold the tensors of the pass that failed.
                traceback.clear_frames(error.__traceback__)
                self._release()
            return error


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error tells of too little memory, on whichever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(each in text for each in _OUT_OF_MEMORY)


def shortened(work: Work, tokens: int) -> Work:
    """The first tokens of a piece of a prompt. No token comes of it."""
    return replace(work, tokens=tokens, samples=False)


def tokens_of(works: Rows[Work]) -> int:
    """How many tokens works compute together."""
    return sum(work.tokens for work in works)
