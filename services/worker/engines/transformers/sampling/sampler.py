"""Chooses the next token of many sequences at once.

Order: logit bias, penalties, what is forbidden (an end before min_tokens, bad words, constraints),
temperature, top_k, top_p, min_p; then one uniform number per row goes through the inverse of the
cumulative distribution. Nothing that one row gets depends on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch

from services.mesh.errors import InternalError, InvalidRequestError, MeshError
from services.worker.engines.transformers.sampling.blocks import block_maxima, likeliest
from services.worker.engines.transformers.sampling.drawing import draw, draw_filtered
from services.worker.engines.transformers.sampling.logprobs import scores
from services.worker.engines.transformers.sampling.masks import constrain, forbid
from services.worker.engines.transformers.sampling.plan import SamplingPlan
from services.worker.engines.transformers.sampling.prompt_scores import TokenScore
from services.worker.engines.transformers.sampling.token_counts import TokenCounts
from services.worker.engines.transformers.scheduling.sequence import Sequence

_NO_NUMBER = -1
_NO_TOKEN = -2
_SCORED_ROWS = 32
"""Rows of a prompt that are scored at once: bounds the memory for it."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A token, with log probabilities (before any processing) where they were asked for."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Samples from logits `[rows, vocabulary]`. For one thread."""

    def __init__(self, vocabulary_size: int, device: torch.device) -> None:
        self._device = device
        self._vocabulary_size = vocabulary_size
        self._counts: dict[Sequence, TokenCounts] = {}
        self._plan = SamplingPlan([], device)
        self._penalties = self._plan.penalties(self._counts)
        self._scratch = torch.empty(0, vocabulary_size, device=device)

    @torch.inference_mode()
    def sample(self, rows: Rows[Sequence], logits: torch.Tensor) -> list[Sampled | MeshError]:
        """The next token of each row, or why it has none. Changes `logits`."""
        # Some models pad their output beyond the vocabulary.
        logits = logits[:, : self._vocabulary_size]
        if not self._plan.is_for(rows):
            self._plan = SamplingPlan(rows, self._device)
            self._penalties = self._plan.penalties(self._counts)
        plan = self._plan
        logprobs = None
        if len(plan.logprob_rows):
            logprobs = torch.log_softmax(_pick(logits, plan.logprob_rows), -1)
        self._process(rows, logits, plan)
        maxima = block_maxima(logits)
        values, drawn = likeliest(logits, maxima)
        if len(plan.random_rows):
            drawn[plan.random_rows] = self._draw(logits, maxima, plan)
        scored = None
        if logprobs is not None:
            scored = scores(logprobs, drawn[plan.logprob_rows], plan.top_counts)
        is_without = values == float("-inf")
        drawn.masked_fill_(~torch.isfinite(values), _NO_NUMBER).masked_fill_(is_without, _NO_TOKEN)
        return _outcomes(rows, drawn.tolist(), plan, scored)

    @torch.inference_mode()
    def score(self, token_ids: Rows[int], logits: torch.Tensor, top_count: int) -> list[TokenScore]:
        """Log probabilities of given tokens: token by token what each row says of it.

        Raises:
            InternalError: the model computed what is no number.
        """
        logits = logits[:, : self._vocabulary_size]
        scored: list[TokenScore] = []
        for start in range(0, len(token_ids), _SCORED_ROWS):
            part = slice(start, start + _SCORED_ROWS)
            ids = torch.tensor(token_ids[part], device=self._device)
            logprobs = torch.log_softmax(logits[part], -1)
            if not bool(torch.isfinite(block_maxima(logprobs).amax(-1)).all()):
                raise _no_number()
            scored += scores(logprobs, ids, [top_count] * len(ids))
        return scored

    def _process(self, rows: Rows[Sequence], logits: torch.Tensor, plan: SamplingPlan) -> None:
        if plan.bias is not None:
            logits.index_put_(plan.bias.index, plan.bias.values, accumulate=True)
        if self._penalties is not None:
            self._penalties.follow([rows[row].output.token_ids for row in self._penalties.rows])
            self._penalties.apply(logits)
        forbidden = [
            (row, token_id)
            for row in plan.watched_rows
            for token_id in rows[row].output.forbidden_next()
        ]
        forbid(logits, plan.always_forbidden + forbidden)
        if plan.constrained:
            constrain(
                logits,
                [each.row for each in plan.constrained],
                [each.constraint for each in plan.constrained],
            )

    def _draw(self, logits: torch.Tensor, maxima: torch.Tensor, plan: SamplingPlan) -> torch.Tensor:
        """`[random rows]`: their tokens."""
        probabilities = self._probabilities(logits, plan)
        numbers = plan.numbers()
        if not len(plan.filtered):
            return draw(probabilities, plan.unfiltered, numbers)
        drawn = torch.empty(len(plan.random_rows), dtype=torch.long, device=self._device)
        drawn[plan.filtered] = draw_filtered(
            probabilities,
            maxima[plan.random_rows[plan.filtered]],
            plan.filtered,
            numbers[plan.filtered],
            plan.filters,
        )
        if len(plan.unfiltered):
            drawn[plan.unfiltered] = draw(probabilities, plan.unfiltered, numbers[plan.unfiltered])
        return drawn

    def _probabilities(self, logits: torch.Tensor, plan: SamplingPlan) -> torch.Tensor:
        """`[random rows, vocabulary]`, in memory that is kept from step to step."""
        count = len(plan.random_rows)
        if len(self._scratch) < count:
            self._scratch = torch.empty(count, self._vocabulary_size, device=self._device)
        out = self._scratch[:count]
        torch.div(_pick(logits, plan.random_rows), plan.temperatures, out=out)
        return torch.softmax(out, -1, out=out)


def _pick(rows: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Some of the rows, without a copy where it is all."""
    return rows if len(at) == len(rows) else rows[at]


def _outcomes(
    rows: Rows[Sequence], token_ids: list[int], plan: SamplingPlan, scored: list[TokenScore] | None
) -> list[Sampled | MeshError]:
    outcomes: list[Sampled | MeshError] = [Sampled(token_id) for token_id in token_ids]
    if scored is not None:
        for row, score in zip(plan.logprob_rows.tolist(), scored, strict=True):
            outcomes[row] = Sampled(token_ids[row], score.logprob, score.top)
    if min(token_ids) < 0:
        for row, token_id in enumerate(token_ids):
            if token_id < 0:
                outcomes[row] = _error(rows[row], token_id)
    return outcomes


def _error(row: Sequence, code: int) -> MeshError:
    output = row.output
    if code == _NO_TOKEN and (output.bad_words is not None or output.constraint is not None):
        return InvalidRequestError(
            "min_tokens, bad_words and constraint together leave no token that may come next",
            field="sampling",
        )
    return _no_number()


def _no_number() -> MeshError:
    return InternalError(
        "the model computed logits that are no finite numbers, so that no token can be chosen"
    )
