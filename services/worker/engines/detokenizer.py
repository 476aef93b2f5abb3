"""Turns token ids into text as they arrive, never releasing half a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Decoders look at neighbours (a leading space, a run of bytes), so a few tokens before the new
# ones are decoded with them; a UTF-8 character has at most four bytes, hence at most four tokens.
_CONTEXT_TOKENS = 5
_MAX_WINDOW_TOKENS = 24


class IncrementalDetokenizer:
    """The text of one sequence.

    The pieces together equal the decoded output, as a continuation of the prompt: the space that
    some decoders strip at the start of a text is kept. An incomplete character is held back until
    it is complete, is seen to be invalid, or `flush` says that nothing more comes.
    """

    def __init__(self, decode: Decode, prompt_ids: Sequence[int] = ()) -> None:
        self._decode = decode
        self._window: list[int] = list(prompt_ids[-_CONTEXT_TOKENS:])
        self._released = len(_complete(decode(self._window))) if self._window else 0

    def feed(self, token_ids: Sequence[int]) -> str:
        """Takes the next tokens and returns the text that they complete."""
        self._window.extend(token_ids)
        text = self._decode(self._window)
        complete = len(_complete(text))
        if len(text) - complete > _CONTEXT_TOKENS:
            # So long a tail cannot be one incomplete character: it is invalid and stays so.
            complete = len(text) - _CONTEXT_TOKENS
        piece = text[self._released : complete]
        self._released = max(self._released, complete)
        if len(self._window) > _MAX_WINDOW_TOKENS:
            self._shorten_window(held=len(text) - self._released)
        return piece

    def flush(self) -> str:
        """The held-back rest: U+FFFD where a character really is incomplete."""
        text = self._decode(self._window)
        piece = text[self._released :]
        self._released = len(text)
        return piece

    def _shorten_window(self, held: int) -> None:
        self._window = self._window[-2 * _CONTEXT_TOKENS :]
        self._released = max(0, len(self._decode(self._window)) - held)


def _complete(text: str) -> str:
    return text.rstrip(_REPLACEMENT)
