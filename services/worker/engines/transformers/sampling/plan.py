"""What sampling a set of sequences takes, as tensors that are made once for the set."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from services.worker.engines.base import Sampling
from services.worker.engines.randomness import stream, uniforms
from services.worker.engines.transformers.sampling.drawing import Filters
from services.worker.engines.transformers.sampling.penalties import Penalties, is_penalised
from services.worker.engines.transformers.sampling.token_counts import TokenCounts
from services.worker.engines.transformers.scheduling.sequence import Sequence
from services.worker.engines.transformers.text.output import Output
from services.worker.engines.transformers.transfer import to_device

_ALL = 2**31 - 1


@dataclass(frozen=True)
class Bias:
    """Logit biases of all rows, flat."""

    index: tuple[torch.Tensor, torch.Tensor]
    values: torch.Tensor


class Constrained(NamedTuple):
    """A row whose output must have a form."""

    row: int
    output: Output


class SamplingPlan:
    """Kept while the same sequences are sampled in the same order: mostly for many steps.

    `random_rows` are the rows that are drawn rather than greedy; `filtered` and `unfiltered` are
    positions in it, and `filters` is in the order of `filtered`. What no row asks for is empty or
    None, and costs nothing in a step.
    """

    def __init__(self, rows: Rows[Sequence], device: torch.device) -> None:
        self._rows = list(rows)
        self._device = device
        samplings = [row.request.sampling for row in rows]
        numbered = list(enumerate(samplings))
        self.bias = self._bias(samplings)
        self.always_forbidden = [
            (at, token_id) for at, row in enumerate(rows) for token_id in _always_forbidden(row)
        ]
        self.watched_rows = [
            at
            for at, row in enumerate(rows)
            if row.output.constraint is None
            and (row.output.bad_words is not None or row.request.sampling.min_tokens)
        ]
        """Rows in which what is forbidden changes from step to step. Where an output has a form,
        its mask knows."""
        self.constrained = [
            Constrained(at, row.output)
            for at, row in enumerate(rows)
            if row.output.constraint is not None
        ]
        self.logprob_places = [
            at for at, each in numbered if each.top_logprobs is not None or each.ranks
        ]
        self.logprob_rows = self._places(self.logprob_places)
        self.top_counts = [samplings[row].top_logprobs or 0 for row in self.logprob_places]
        drawn = [(at, each) for at, each in numbered if not each.greedy]
        self.random_rows = self._places(at for at, _ in drawn)
        self.temperatures = self._column([each.temperature for _, each in drawn])
        is_filtered = [_is_filtered(each) for _, each in drawn]
        self.filtered = self._places(at for at, each in enumerate(is_filtered) if each)
        self.unfiltered = self._places(at for at, each in enumerate(is_filtered) if not each)
        narrowed = [each for _, each in drawn if _is_filtered(each)]
        self.filters = Filters(
            self._column([each.top_k or _ALL for each in narrowed]),
            self._column([each.top_p for each in narrowed]),
            self._column([each.min_p for each in narrowed]),
        )
        self._outputs = [rows[at].output for at, _ in drawn]
        self._streams = np.array(
            [stream(each.seed, rows[at].choice_index) for at, each in drawn], dtype=np.uint64
        )

    def is_for(self, rows: Rows[Sequence]) -> bool:
        """Whether the plan was made for just these sequences."""
        return len(rows) == len(self._rows) and all(map(operator.is_, rows, self._rows))

    def numbers(self) -> torch.Tensor:
        """`[random rows, 1]`: the random number of each for its next token."""
        positions = np.array([len(each.token_ids) for each in self._outputs], dtype=np.uint64)
        return to_device(uniforms(self._streams, positions), self._device)[:, None]

    def penalties(self, counts: dict[Sequence, TokenCounts]) -> Penalties | None:
        """The penalties of its rows, None without any. `counts` then holds just these rows."""
        held = {row: counts.get(row) for row in self._rows if is_penalised(row.request.sampling)}
        counts.clear()
        counts |= {row: each or TokenCounts(row.request.prompt_ids) for row, each in held.items()}
        if not counts:
            return None
        for row, each in counts.items():
            each.follow(row.output.token_ids)
        rows = [at for at, row in enumerate(self._rows) if row in counts]
        samplings = [row.request.sampling for row in counts]
        return Penalties(rows, samplings, list(counts.values()), self._device)

    def _places(self, places: Iterable[int]) -> torch.Tensor:
        return to_device(torch.tensor(list(places), dtype=torch.long), self._device)

    def _column(self, values: list[float] | list[int]) -> torch.Tensor:
        return to_device(torch.tensor(values), self._device)[:, None]

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
            (
                to_device(torch.tensor(rows), self._device),
                to_device(torch.tensor(token_ids), self._device),
            ),
            to_device(torch.tensor(biases, dtype=torch.float32), self._device),
        )


def _always_forbidden(row: Sequence) -> tuple[int, ...]:
    output = row.output
    if output.bad_words is None or output.constraint is not None:
        return ()
    return output.bad_words.always


def _is_filtered(sampling: Sampling) -> bool:
    return bool(sampling.top_k) or sampling.top_p < 1 or sampling.min_p > 0
