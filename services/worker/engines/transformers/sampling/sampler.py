"""Chooses the next token of many sequences at once.

Order: logit bias, penalties, what is forbidden (an end before min_tokens, bad words, constraints),
temperature, top_k, top_p, min_p; then one uniform number per row goes through the inverse of the
cumulative distribution. Nothing that one row gets depends on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch

from services.mesh.errors import MeshError
from services.worker.engines.constraints import fill_each
from services.worker.engines.transformers.sampling.blocks import block_maxima, likeliest
from services.worker.engines.transformers.sampling.drawing import (
    draw,
    draw_filtered,
)
from services.worker.engines.transformers.sampling.logprobs import scores
from services.worker.engines.transformers.sampling.masks import (
    Fill,
    Filling,
    Masks,
    forbid,
)
from services.worker.engines.transformers.sampling.pending import (
    Choice,
    PendingTokens,
    Redraw,
    Sampled,
    no_number,
)
from services.worker.engines.transformers.sampling.plan import SamplingPlan
from services.worker.engines.transformers.sampling.prompt_scores import TokenScore
from services.worker.engines.transformers.sampling.token_counts import TokenCounts
from services.worker.engines.transformers.scheduling.sequence import Sequence

_SCORED_ROWS = 32
"""Rows of a prompt that are scored at once: bounds the memory for it."""


class Sampler:
    """Samples from logits `[rows, vocabulary]`. For one thread.

    Args:
        vocabulary_size: logits of a row that stand for tokens.
        device: where the logits are.
        fill: has constraints tell what may come next.
    """

    def __init__(self, vocabulary_size: int, device: torch.device, fill: Fill = fill_each) -> None:
        self._masks = Masks(vocabulary_size, fill)
        self._filling: Filling | None = None
        self._device = device
        self._vocabulary_size = vocabulary_size
        self._counts: dict[Sequence, TokenCounts] = {}
        self._plan = SamplingPlan([], device)
        self._penalties = self._plan.penalties(self._counts)
        self._scratch = torch.empty(0, vocabulary_size, device=device)

    def prepare(self, rows: Rows[Sequence]) -> None:
        """Begins what does not need the logits of rows that will be launched next."""
        self._filling = None
        if not self._plan.is_for(rows):
            self._plan = SamplingPlan(rows, self._device)
            self._penalties = self._plan.penalties(self._counts)
        constrained = self._plan.constrained
        if constrained:
            self._filling = self._masks.begin(
                [each.row for each in constrained], [each.output for each in constrained]
            )

    def sample(self, rows: Rows[Sequence], logits: torch.Tensor) -> list[Sampled | MeshError]:
        """The next token of each row, or why it has none. Changes `logits`."""
        return self.launch(rows, logits).read()

    @torch.inference_mode()
    def launch(self, rows: Rows[Sequence], logits: torch.Tensor) -> PendingTokens:
        """Has the device choose the next token of each row, without waiting. Changes `logits`.

        The result must be read before the next call.
        """
        # Some models pad their output beyond the vocabulary.
        logits = logits[:, : self._vocabulary_size]
        if self._filling is None or not self._plan.is_for(rows):
            self.prepare(rows)
        plan = self._plan
        logprobs = None
        if len(plan.logprob_rows):
            logprobs = torch.log_softmax(_pick(logits, plan.logprob_rows), -1)
        self._process(rows, logits, plan)
        maxima = block_maxima(logits)
        values, drawn = likeliest(logits, maxima)
        redraw = None
        if len(plan.random_rows):
            drawn[plan.random_rows], redraw = self._draw(logits, maxima, plan)
        return PendingTokens(list(rows), plan, Choice(values, drawn, logprobs, redraw))

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
                raise no_number()
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
        if self._filling is not None:
            self._filling.apply(logits)
            self._filling = None

    def _draw(
        self, logits: torch.Tensor, maxima: torch.Tensor, plan: SamplingPlan
    ) -> tuple[torch.Tensor, Redraw | None]:
        """`[random rows]`: their tokens, and what may have to be drawn again."""
        probabilities = self._probabilities(logits, plan)
        numbers = plan.numbers()
        if not len(plan.filtered):
            return draw(probabilities, plan.unfiltered, numbers), None
        drawn = torch.empty(len(plan.random_rows), dtype=torch.long, device=self._device)
        filtered_numbers = numbers[plan.filtered]
        drawn[plan.filtered], is_short = draw_filtered(
            probabilities,
            maxima[plan.random_rows[plan.filtered]],
            plan.filtered,
            filtered_numbers,
            plan.filters,
        )
        if len(plan.unfiltered):
            drawn[plan.unfiltered] = draw(probabilities, plan.unfiltered, numbers[plan.unfiltered])
        if is_short is None:
            return drawn, None
        return drawn, Redraw(probabilities, filtered_numbers, is_short, plan)

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
