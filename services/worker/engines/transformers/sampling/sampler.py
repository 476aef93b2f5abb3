"""Chooses the next token of many sequences at once.

Order: minimum length, logit bias, penalties, temperature, top_k, top_p, min_p; then one uniform
number per row goes through the inverse of the cumulative distribution. Nothing that one row gets
depends on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch

from services.worker.engines.randomness import uniform
from services.worker.engines.transformers.sampling.plan import Filters, SamplingPlan
from services.worker.engines.transformers.sampling.token_counts import TokenCounts
from services.worker.engines.transformers.scheduling.sequence import Sequence

_CANDIDATES = 512
"""Likeliest tokens that are sorted first: enough for most filters, far cheaper than all."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A token, with log probabilities (before any processing) where they were asked for."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Samples from logits `[rows, vocabulary]`. For one thread."""

    def __init__(self, slots: int, vocabulary_size: int, device: torch.device) -> None:
        self._device = device
        self._vocabulary_size = vocabulary_size
        self._counts = TokenCounts(slots, vocabulary_size, device)
        self._plan = SamplingPlan([], device)

    @torch.inference_mode()
    def sample(self, rows: Rows[Sequence], logits: torch.Tensor) -> list[Sampled]:
        """The next token of each row. Changes `logits`.

        Raises:
            FloatingPointError: the model computed NaN.
        """
        # Some models pad their output beyond the vocabulary.
        logits = logits[:, : self._vocabulary_size]
        if not self._plan.is_for(rows):
            self._plan = SamplingPlan(rows, self._device)
        plan = self._plan
        logprobs = torch.log_softmax(logits[plan.logprob_rows], -1) if plan.logprob_rows else None
        self._process(rows, logits, plan)
        likeliest, greedy_ids = logits.max(-1)
        if not bool(torch.isfinite(likeliest).all()):
            raise FloatingPointError("the model computed logits that are no numbers")
        token_ids: list[int] = greedy_ids.tolist()
        if plan.random_rows:
            self._draw(rows, logits, plan, token_ids)
        if logprobs is None:
            return [Sampled(token_id) for token_id in token_ids]
        return _with_logprobs(token_ids, logprobs, plan)

    def _process(self, rows: Rows[Sequence], logits: torch.Tensor, plan: SamplingPlan) -> None:
        for row in plan.min_tokens_rows:
            if rows[row].output.must_go_on:
                logits[row, list(rows[row].output.ending_ids)] = float("-inf")
        if plan.bias is not None:
            logits.index_put_(plan.bias.index, plan.bias.values, accumulate=True)
        if plan.penalties is not None:
            penalties = plan.penalties
            self._counts.update([rows[row] for row in penalties.rows])
            seen, counts = self._counts.of(penalties.slots)
            penalised = logits[penalties.rows]
            scaled = torch.where(
                penalised > 0, penalised / penalties.repetition, penalised * penalties.repetition
            )
            penalised = torch.where(seen, scaled, penalised)
            penalised -= penalties.frequency * counts
            penalised -= penalties.presence * (counts > 0)
            logits[penalties.rows] = penalised

    def _draw(
        self,
        rows: Rows[Sequence],
        logits: torch.Tensor,
        plan: SamplingPlan,
        token_ids: list[int],
    ) -> None:
        """Replaces the greedy tokens of the rows that are drawn."""
        scaled = logits if plan.all_random else logits[plan.random_rows]
        probabilities = torch.softmax(scaled / plan.temperatures, -1)
        numbers = torch.tensor(
            [
                uniform(
                    rows[row].request.sampling.seed,
                    rows[row].choice_index,
                    len(rows[row].output.token_ids),
                )
                for row in plan.random_rows
            ],
            device=self._device,
        )[:, None]
        if plan.unfiltered:
            cumulative = _pick(probabilities, plan.unfiltered).cumsum(-1)
            drawn = _invert(cumulative, _pick(numbers, plan.unfiltered)).tolist()
            for at, token_id in zip(plan.unfiltered, drawn, strict=True):
                token_ids[plan.random_rows[at]] = token_id
        if plan.filtered:
            rows_p, rows_u = _pick(probabilities, plan.filtered), _pick(numbers, plan.filtered)
            drawn = _draw_filtered(rows_p, rows_u, plan.filters)
            for at, token_id in zip(plan.filtered, drawn, strict=True):
                token_ids[plan.random_rows[at]] = token_id


def _pick(rows: torch.Tensor, positions: list[int]) -> torch.Tensor:
    """Some of the rows, without a copy where it is all."""
    return rows if len(positions) == len(rows) else rows[positions]


def _draw_filtered(
    probabilities: torch.Tensor, numbers: torch.Tensor, filters: Filters
) -> list[int]:
    """Draws from rows with top_k, top_p or min_p."""
    vocabulary = probabilities.shape[-1]
    few = min(_CANDIDATES, vocabulary)
    top_k, top_p, min_p = filters
    sorted_p, sorted_ids = _likeliest(probabilities, few)
    # Enough candidates where all that a filter keeps is among them. Decided row by row, so that a
    # row's way does not depend on its neighbours.
    enough = (sorted_p.sum(-1, keepdim=True) >= top_p) & (top_p < 1)
    enough |= sorted_p[:, -1:] < min_p * sorted_p[:, :1]
    enough &= top_k >= vocabulary
    enough |= top_k <= few
    drawn = _choose(sorted_p, sorted_ids, numbers, filters)
    short = [] if few == vocabulary else (~enough[:, 0]).nonzero()[:, 0].tolist()
    for row in short:
        one = slice(row, row + 1)
        all_p, all_ids = probabilities[one].sort(dim=-1, descending=True, stable=True)
        drawn[row] = _choose(all_p, all_ids, numbers[one], filters.of(row))[0]
    return drawn


def _likeliest(probabilities: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens of each row, likeliest first; equal ones by rising id."""
    ids = probabilities.topk(count, sorted=False).indices.sort(-1).values
    values, order = probabilities.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, order)


def _choose(
    sorted_p: torch.Tensor,
    sorted_ids: torch.Tensor,
    numbers: torch.Tensor,
    filters: Filters,
) -> list[int]:
    """Filters rows of sorted probabilities and inverts their cumulative distribution."""
    top_k, top_p, min_p = filters
    ranks = torch.arange(sorted_p.shape[-1], device=sorted_p.device)
    kept = sorted_p.masked_fill(ranks >= top_k, 0.0)
    before = kept.cumsum(-1) - kept
    # Of what top_k leaves, or of everything, which then has the probability 1.
    mass = torch.where(top_k <= sorted_p.shape[-1], kept.sum(-1, keepdim=True), 1.0)
    kept = kept.masked_fill((before >= top_p * mass) & (top_p < 1), 0.0)
    kept = kept.masked_fill(sorted_p < min_p * sorted_p[:, :1], 0.0)
    ranks_drawn = _invert(kept.cumsum(-1), numbers)
    ids: list[int] = sorted_ids.gather(-1, ranks_drawn[:, None])[:, 0].tolist()
    return ids


def _invert(cumulative: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """The first index of each row whose cumulative value is over the row's share of the total."""
    return torch.searchsorted(cumulative, cumulative[:, -1:] * numbers, right=True)[:, 0]


def _with_logprobs(
    token_ids: list[int], logprobs: torch.Tensor, plan: SamplingPlan
) -> list[Sampled]:
    sampled = [Sampled(token_id) for token_id in token_ids]
    chosen = torch.tensor([token_ids[row] for row in plan.logprob_rows], device=logprobs.device)
    own: list[float] = logprobs.gather(-1, chosen[:, None])[:, 0].tolist()
    most = min(max(plan.top_counts), logprobs.shape[-1])
    top_values, top_ids = logprobs.topk(most) if most else (logprobs[:, :0], logprobs[:, :0])
    for row, count, value, ids, values in zip(
        plan.logprob_rows, plan.top_counts, own, top_ids.tolist(), top_values.tolist(), strict=True
    ):
        top = tuple(zip(ids[:count], values[:count], strict=True))
        sampled[row] = Sampled(token_ids[row], value, top)
    return sampled
