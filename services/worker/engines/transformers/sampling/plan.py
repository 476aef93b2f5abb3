"""What sampling a set of sequences takes, as tensors that are made once for the set."""

from __future__ import annotations

import operator
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import NamedTuple

import torch

from services.worker.engines.base import Sampling
from services.worker.engines.transformers.scheduling.sequence import Sequence


@dataclass(frozen=True)
class Bias:
    """Logit biases of all rows, flat."""

    index: tuple[torch.Tensor, torch.Tensor]
    values: torch.Tensor


@dataclass(frozen=True)
class Penalties:
    """Rows with a penalty, and their strengths `[rows, 1]`."""

    rows: list[int]
    slots: list[int]
    repetition: torch.Tensor
    presence: torch.Tensor
    frequency: torch.Tensor


class Filters(NamedTuple):
    """What is left to draw from, `[rows, 1]` each. top_k is huge where it keeps all."""

    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor

    def of(self, row: int) -> Filters:
        """Those of one row."""
        return Filters(*(each[row : row + 1] for each in self))


class SamplingPlan:
    """Kept while the same sequences are sampled in the same order: mostly for many steps.

    `random_rows` are the rows that are drawn rather than greedy; `filtered` and `unfiltered` are
    positions in it, and `filters` is in the order of `filtered`.
    """

    def __init__(self, rows: Rows[Sequence], device: torch.device) -> None:
        self._rows = list(rows)
        self._device = device
        samplings = [row.request.sampling for row in rows]
        numbered = list(enumerate(samplings))
        self.min_tokens_rows = [row for row, each in numbered if each.min_tokens]
        self.bias = self._bias(samplings)
        self.penalties = self._penalties(samplings)
        self.logprob_rows = [row for row, each in numbered if each.top_logprobs is not None]
        self.top_counts = [samplings[row].top_logprobs or 0 for row in self.logprob_rows]
        self.random_rows = [row for row, each in numbered if not each.greedy]
        self.all_random = len(self.random_rows) == len(samplings)
        drawn = [samplings[row] for row in self.random_rows]
        self.temperatures = self._column([each.temperature for each in drawn])
        self.filtered = [at for at, each in enumerate(drawn) if _is_filtered(each)]
        self.unfiltered = [at for at, each in enumerate(drawn) if not _is_filtered(each)]
        narrowed = [drawn[at] for at in self.filtered]
        self.filters = Filters(
            self._column([each.top_k or _ALL for each in narrowed]),
            self._column([each.top_p for each in narrowed]),
            self._column([each.min_p for each in narrowed]),
        )

    def is_for(self, rows: Rows[Sequence]) -> bool:
        """Whether the plan was made for just these sequences."""
        return len(rows) == len(self._rows) and all(map(operator.is_, rows, self._rows))

    def _column(self, values: list[float] | list[int]) -> torch.Tensor:
        return torch.tensor(values, device=self._device)[:, None]

    def _bias(self, samplings: list[Sampling]) -> Bias | None:
        entries = [
            (row, token_id, bias)
            for row, sampling in enumerate(samplings)
            for token_id, bias in sampling.logit_bias.items()
        ]
        if not entries:
            return None
        rows, token_ids, biases = zip(*entries, strict=True)
        return Bias(
            (torch.tensor(rows, device=self._device), torch.tensor(token_ids, device=self._device)),
            torch.tensor(biases, dtype=torch.float32, device=self._device),
        )

    def _penalties(self, samplings: list[Sampling]) -> Penalties | None:
        rows = [row for row, sampling in enumerate(samplings) if _is_penalised(sampling)]
        if not rows:
            return None
        penalised = [samplings[row] for row in rows]
        slots = [self._rows[row].slot for row in rows]
        return Penalties(
            rows,
            [slot for slot in slots if slot is not None],
            self._column([each.repetition_penalty for each in penalised]),
            self._column([each.presence_penalty for each in penalised]),
            self._column([each.frequency_penalty for each in penalised]),
        )


_ALL = 2**31 - 1


def _is_filtered(sampling: Sampling) -> bool:
    return bool(sampling.top_k) or sampling.top_p < 1 or sampling.min_p > 0


def _is_penalised(sampling: Sampling) -> bool:
    return (
        sampling.repetition_penalty != 1
        or sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
    )
