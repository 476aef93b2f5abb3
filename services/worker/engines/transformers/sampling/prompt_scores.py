"""Log probabilities of a prompt's tokens, gathered as the prompt is computed piece by piece."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import NamedTuple


class TokenScore(NamedTuple):
    """A token's log probability, and the likeliest tokens at its place, likeliest first."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class PromptScores:
    """What a request's choices know of their one prompt. Each piece is computed but once.

    Args:
        prompt_ids: at least one.
        top_count: how many of the likeliest tokens are wanted at each place.
    """

    def __init__(self, prompt_ids: tuple[int, ...], top_count: int) -> None:
        self.top_count = top_count
        self._prompt_ids = prompt_ids
        self._scores: dict[int, TokenScore] = {}

    @property
    def is_complete(self) -> bool:
        """Whether all tokens but the first, which nothing stands before, have theirs."""
        return len(self._scores) == len(self._prompt_ids) - 1

    def told_by(self, start: int, tokens: int) -> tuple[int, ...]:
        """The prompt's tokens of which the logits at so many positions from `start` on tell."""
        return self._prompt_ids[start + 1 : start + 1 + tokens]

    def record(self, start: int, scores: Rows[TokenScore]) -> None:
        """Takes the scores of what `told_by` says of the same positions."""
        for position, score in enumerate(scores, start + 1):
            self._scores[position] = score

    def in_order(self) -> list[tuple[int, TokenScore | None]]:
        """Each token of the prompt with its score; the first has none. Must be complete."""
        return [
            (token_id, self._scores[position] if position else None)
            for position, token_id in enumerate(self._prompt_ids)
        ]
