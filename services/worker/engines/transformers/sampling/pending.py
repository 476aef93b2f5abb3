"""Tokens that a device has been told to choose, and what is read of them."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch

from services.mesh.errors import InternalError, InvalidRequestError, MeshError
from services.worker.engines.forms import CONSTRAINT_FIELD
from services.worker.engines.transformers.sampling.drawing import draw_from_all
from services.worker.engines.transformers.sampling.logprobs import Scores
from services.worker.engines.transformers.sampling.plan import SamplingPlan
from services.worker.engines.transformers.sampling.prompt_scores import TokenScore
from services.worker.engines.transformers.scheduling.sequence import Sequence
from services.worker.engines.transformers.transfer import to_device

_NO_NUMBER = -1
_NO_TOKEN = -2


@dataclass(frozen=True, slots=True)
class Sampled:
    """A token, with log probabilities (before any processing) where they were asked for."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Redraw:
    """Filtered rows for which a look at the likeliest tokens may not have been enough."""

    probabilities: torch.Tensor
    numbers: torch.Tensor
    is_short: torch.Tensor
    plan: SamplingPlan

    def into(self, drawn: torch.Tensor, short: list[int]) -> None:
        """Draws the filtered rows at these places again, into the tokens of all rows."""
        plan = self.plan
        places = to_device(torch.tensor(short), drawn.device)
        at = plan.filtered[places]
        token_ids = draw_from_all(
            self.probabilities, at, self.numbers[places], plan.filters.of(places)
        )
        drawn[plan.random_rows[at]] = token_ids


@dataclass(frozen=True, slots=True)
class Choice:
    """What the device has been told to choose, for each row.

    `values` are the largest logits, `drawn` the token ids, `logprobs` the log probabilities of the
    plan's `logprob_rows`, and `redraw` what may have to be drawn again.
    """

    values: torch.Tensor
    drawn: torch.Tensor
    logprobs: torch.Tensor | None
    redraw: Redraw | None


class PendingTokens:
    """The next tokens of some rows, while the device may still choose them."""

    def __init__(
        self,
        rows: Rows[Sequence],
        plan: SamplingPlan,
        choice: Choice,
    ) -> None:
        self._rows = rows
        self._plan = plan
        self._choice = choice
        self._scores = self._score()
        redraw = choice.redraw
        found = self._codes()
        # One transfer brings all that is read of a step without log probabilities.
        self._codes_and_flags = (
            found if redraw is None else torch.cat((found, redraw.is_short.long()))
        )

    @torch.inference_mode()
    def read(self) -> list[Sampled | MeshError]:
        """The token of each row, or why it has none. Waits for the device."""
        found: list[int] = self._codes_and_flags.tolist()
        redraw = self._choice.redraw
        if redraw is not None:
            flags = found[len(self._rows) :]
            del found[len(self._rows) :]
            if any(flags):
                short = [place for place, flag in enumerate(flags) if flag]
                redraw.into(self._choice.drawn, short)
                self._scores = self._score()
                found = self._codes().tolist()
        scored = None if self._scores is None else self._scores.read()
        return _outcomes(self._rows, found, self._plan, scored)

    def _score(self) -> Scores | None:
        if self._choice.logprobs is None:
            return None
        rows = self._plan.logprob_rows
        return Scores(self._choice.logprobs, self._choice.drawn[rows], self._plan.top_counts)

    def _codes(self) -> torch.Tensor:
        """`[rows]`: token ids, or why there is none."""
        is_without = self._choice.values == float("-inf")
        codes = self._choice.drawn.masked_fill(~torch.isfinite(self._choice.values), _NO_NUMBER)
        return codes.masked_fill_(is_without, _NO_TOKEN)


def _outcomes(
    rows: Rows[Sequence], token_ids: list[int], plan: SamplingPlan, scored: list[TokenScore] | None
) -> list[Sampled | MeshError]:
    outcomes: list[Sampled | MeshError] = [Sampled(token_id) for token_id in token_ids]
    if scored is not None:
        for row, score in zip(plan.logprob_places, scored, strict=True):
            outcomes[row] = Sampled(token_ids[row], score.logprob, score.top)
    if min(token_ids) < 0:
        for row, token_id in enumerate(token_ids):
            if token_id < 0:
                outcomes[row] = _error(rows[row], token_id)
    return outcomes


def _error(row: Sequence, code: int) -> MeshError:
    output = row.output
    if code == _NO_TOKEN and output.constraint is not None:
        return InvalidRequestError(
            "the form of the output has become too complex to be followed, or no text of this "
            "model can go on with it",
            field=CONSTRAINT_FIELD,
        )
    if code == _NO_TOKEN and output.bad_words is not None:
        return InvalidRequestError(
            "min_tokens and bad_words together leave no token that may come next",
            field="sampling",
        )
    return no_number()


def no_number() -> MeshError:
    """The error of a row whose logits are none."""
    return InternalError(
        "the model computed logits that are no finite numbers, so that no token can be chosen"
    )
