"""One call as the engine computes it: rows that may run in different batches, and one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.mesh.errors import MeshError

Result = Any
"""A vector, or a score."""


@dataclass(frozen=True, slots=True)
class Row:
    """A text, or a pair of texts, as the model reads it."""

    token_ids: Sequence[int]
    type_ids: Sequence[int] | None = None
    """Which of a pair each token is of, for models that are told."""

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(eq=False, slots=True)
class Job:
    """A call whose rows wait or run.

    `answer` is called once, in the engine's thread: with the results in the order of the rows, or
    with why there are none.
    """

    rows: Sequence[Row]
    answer: Callable[[Sequence[Result] | MeshError], None]
    deadline_s: float | None = None
    is_over: bool = False
    _left: int = field(init=False)
    _results: list[Result] = field(init=False)

    def __post_init__(self) -> None:
        self._left = len(self.rows)
        self._results = [None] * self._left

    @property
    def tokens(self) -> int:
        """Of all rows."""
        return sum(map(len, self.rows))

    def take(self, index: int, result: Result) -> None:
        """Takes what a row came to. With the last of them the job is over."""
        if self.is_over:
            return
        self._results[index] = result
        self._left -= 1
        if self._left == 0:
            self._end(self._results)

    def fail(self, error: MeshError) -> None:
        """Ends the job. Changes nothing where it is over."""
        if not self.is_over:
            self._end(error)

    def leave(self) -> None:
        """Nobody wants the answer any more."""
        self.is_over = True

    def _end(self, outcome: Sequence[Result] | MeshError) -> None:
        self.is_over = True
        self.answer(outcome)
