"""Turns token ids into text as they arrive, never releasing half a character."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Protocol

Decode = Callable[[Sequence[int]], str]
BytesOf = Callable[[int], bytes]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Decoders look at neighbours (a leading space, a run of bytes), so a few tokens before the new
# ones are decoded with them; a UTF-8 character has at most four bytes, hence at most four tokens.
_CONTEXT_TOKENS = 5
_MAX_WINDOW_TOKENS = 24


class Detokenizer(Protocol):
    """The text of one sequence, as a continuation of the prompt.

    An incomplete character is held back until it is complete, is seen to be invalid, or `flush`
    says that nothing more comes. A space that begins the output is kept, although tokenizers strip
    it where a text begins.
    """

    def feed(self, token_ids: Sequence[int]) -> str:
        """Takes the next tokens and returns the text that they complete."""
        ...

    def flush(self) -> str:
        """The held-back rest: U+FFFD where a character really is incomplete."""
        ...


class ByteDetokenizer:
    """For tokenizers whose tokens each stand for certain bytes of UTF-8, which most do."""

    def __init__(self, bytes_of: BytesOf, prompt_ids: Sequence[int] = ()) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        # The prompt may end inside a character.
        self.feed(prompt_ids[-_CONTEXT_TOKENS:])

    def feed(self, token_ids: Sequence[int]) -> str:
        """See Detokenizer."""
        return self._decoder.decode(b"".join(map(self._bytes_of, token_ids)))

    def flush(self) -> str:
        """See Detokenizer."""
        return self._decoder.decode(b"", final=True)


class WindowDetokenizer:
    """For all other tokenizers: decodes the last tokens again with each new one."""

    def __init__(self, decode: Decode, prompt_ids: Sequence[int] = ()) -> None:
        self._decode = decode
        self._window: list[int] = list(prompt_ids[-_CONTEXT_TOKENS:])
        self._released = len(_complete(decode(self._window))) if self._window else 0

    def feed(self, token_ids: Sequence[int]) -> str:
        """See Detokenizer."""
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
        """See Detokenizer."""
        text = self._decode(self._window)
        piece = text[self._released :]
        self._released = len(text)
        return piece

    def _shorten_window(self, held: int) -> None:
        self._window = self._window[-2 * _CONTEXT_TOKENS :]
        self._released = max(0, len(self._decode(self._window)) - held)


def _complete(text: str) -> str:
    return text.rstrip(_REPLACEMENT)
