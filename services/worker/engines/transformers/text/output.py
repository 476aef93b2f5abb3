"""What one sequence has produced: its tokens, the text they make, and whether they end it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from services.worker.engines.bad_words import BadWords
from services.worker.engines.base import FinishReason, Sampling
from services.worker.engines.constraints import TokenConstraint, Words
from services.worker.engines.detokenizer import Detokenizer
from services.worker.engines.stop_strings import StopStrings


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a sequence is over."""

    reason: FinishReason
    stop_string: str | None = None
    stop_token_id: int | None = None
    is_in_text: bool = False
    """Whether the last token is text, although the output stops there."""


class Output:
    """The output of one sequence: a function of the prompt's and its own token ids.

    Args:
        text: makes its text.
        sampling: holds what may end the output.
        max_tokens: how many tokens it may have.
        end_ids: the model's own end-of-sequence tokens.
        bad_words: what may not come in it.
        constraint: the form that it must have, at its start.
    """

    def __init__(
        self,
        text: Detokenizer,
        sampling: Sampling,
        max_tokens: int,
        end_ids: frozenset[int],
        *,
        bad_words: BadWords | None = None,
        constraint: TokenConstraint | None = None,
    ) -> None:
        self.token_ids: list[int] = []
        self.bad_words = bad_words
        self.constraint = constraint
        self._text = text
        self._stop_strings = StopStrings(sampling.stop, include=sampling.include_stop_string)
        self._max_tokens = max_tokens
        self._min_tokens = sampling.min_tokens
        self._model_end_ids = end_ids
        self._end_ids = frozenset() if sampling.ignore_eos else end_ids
        self._ignores_end = sampling.ignore_eos
        self._stop_ids = sampling.stop_token_ids
        self._include_stop = sampling.include_stop_string
        self.may_end_in_text = bool(sampling.stop)
        """Whether only its text tells if it is over."""

    @property
    def must_go_on(self) -> bool:
        """Whether the next token may not end the output."""
        return len(self.token_ids) + 1 < self._min_tokens

    def forbidden_next(self) -> Iterator[int]:
        """Tokens that may not come next, beside the bad words of one token; some perhaps twice."""
        if self.must_go_on:
            yield from self._end_ids
            yield from self._stop_ids
        if self.bad_words is not None:
            yield from self.bad_words.next_after(self.token_ids)

    def narrow(self, words: Words) -> None:
        """Takes what is forbidden out of what the form allows next, if something is left then.

        The form goes first: what it needs comes although a bad word or an end would come with it.
        """
        unwanted = set(self.forbidden_next())
        if self.bad_words is not None:
            unwanted.update(self.bad_words.always)
        if self.must_go_on or self._ignores_end:
            unwanted |= self._model_end_ids
        if not unwanted:
            return
        before = words.copy()
        bits = words.view(np.uint32)
        for token_id in unwanted:
            bits[token_id // 32] &= ~np.uint32(1 << token_id % 32)
        if not words.any():
            words[:] = before

    def take(self, token_id: int) -> tuple[str, Ending | None]:
        """Adds a token. Returns the text that it releases, and why it ends the output, if so."""
        return self.tell(token_id, self.add(token_id))

    def add(self, token_id: int) -> Ending | None:
        """Adds a token. Returns why it ends the output, as far as ids tell: see `tell`."""
        self.token_ids.append(token_id)
        if self.constraint is not None:
            self.constraint.accept(token_id)
        count = len(self.token_ids)
        is_end = token_id in self._end_ids
        if count >= self._min_tokens and (is_end or token_id in self._stop_ids):
            return Ending(FinishReason.STOP, stop_token_id=None if is_end else token_id)
        if self.constraint is not None and self.constraint.is_complete:
            return Ending(FinishReason.STOP, is_in_text=token_id not in self._model_end_ids)
        return Ending(FinishReason.LENGTH) if count >= self._max_tokens else None

    def tell(self, token_id: int, ending: Ending | None) -> tuple[str, Ending | None]:
        """The text that the token added last releases, and why it ends the output, if so.

        Args:
            token_id: that token. Each is told of once, before the next is added.
            ending: what `add` said. A stop string may end the output all the same.
        """
        if ending is not None and ending.reason is FinishReason.STOP and not ending.is_in_text:
            return self._text_at_stop(token_id, ending), ending
        may_end = len(self.token_ids) >= self._min_tokens
        text, stop_string = self._stop_strings.feed(self._text.feed((token_id,)), may_end=may_end)
        if stop_string is not None:
            return text, Ending(FinishReason.STOP, stop_string=stop_string)
        return text if ending is None else text + self._rest(), ending

    def _text_at_stop(self, token_id: int, ending: Ending) -> str:
        text = ""
        if self._include_stop and ending.stop_token_id is not None:
            text, _ = self._stop_strings.feed(self._text.feed((token_id,)), may_end=False)
        return text + self._rest()

    def _rest(self) -> str:
        """What was held back in case more came."""
        text, _ = self._stop_strings.feed(self._text.flush(), may_end=False)
        return text + self._stop_strings.flush()
