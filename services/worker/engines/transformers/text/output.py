"""What one sequence has produced: its tokens, the text they make, and whether they end it."""

from __future__ import annotations

from dataclasses import dataclass

from services.worker.engines.base import FinishReason, Sampling
from services.worker.engines.detokenizer import Detokenizer
from services.worker.engines.stop_strings import StopStrings


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a sequence is over."""

    reason: FinishReason
    stop_string: str | None = None
    stop_token_id: int | None = None


class Output:
    """The output of one sequence: a function of the prompt's and its own token ids.

    Args:
        text: makes its text.
        sampling: holds what may end the output.
        max_tokens: how many tokens it may have.
        end_ids: the model's own end-of-sequence tokens.
    """

    def __init__(
        self,
        text: Detokenizer,
        sampling: Sampling,
        max_tokens: int,
        end_ids: frozenset[int],
    ) -> None:
        self.token_ids: list[int] = []
        self._text = text
        self._stop_strings = StopStrings(sampling.stop, include=sampling.include_stop_string)
        self._max_tokens = max_tokens
        self._min_tokens = sampling.min_tokens
        self._end_ids = frozenset() if sampling.ignore_eos else end_ids
        self._stop_ids = sampling.stop_token_ids
        self._include_stop = sampling.include_stop_string

    @property
    def ending_ids(self) -> frozenset[int]:
        """The tokens that end the output once min_tokens are reached."""
        return self._end_ids | self._stop_ids

    @property
    def must_go_on(self) -> bool:
        """Whether the next token may not end the output."""
        return len(self.token_ids) + 1 < self._min_tokens

    def take(self, token_id: int) -> tuple[str, Ending | None]:
        """Adds a token. Returns the text that it releases, and why it ends the output, if so."""
        self.token_ids.append(token_id)
        count = len(self.token_ids)
        may_end = count >= self._min_tokens
        if may_end and (token_id in self._end_ids or token_id in self._stop_ids):
            return self._end_at_token(token_id)
        text, stop_string = self._stop_strings.feed(self._text.feed((token_id,)), may_end=may_end)
        if stop_string is not None:
            return text, Ending(FinishReason.STOP, stop_string=stop_string)
        if count >= self._max_tokens:
            return text + self._rest(), Ending(FinishReason.LENGTH)
        return text, None

    def _end_at_token(self, token_id: int) -> tuple[str, Ending]:
        stopped_by = None if token_id in self._end_ids else token_id
        text = ""
        if self._include_stop and stopped_by is not None:
            text, _ = self._stop_strings.feed(self._text.feed((token_id,)), may_end=False)
        return text + self._rest(), Ending(FinishReason.STOP, stop_token_id=stopped_by)

    def _rest(self) -> str:
        """What was held back in case more came."""
        text, _ = self._stop_strings.feed(self._text.flush(), may_end=False)
        return text + self._stop_strings.flush()
