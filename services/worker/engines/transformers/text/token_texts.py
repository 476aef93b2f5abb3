"""Texts and bytes of tokens, alone and in a row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from services.worker.engines.detokenizer import (
    ByteDetokenizer,
    Decode,
    Detokenizer,
    WindowDetokenizer,
)

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_SENTENCEPIECE_DECODERS = frozenset({"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"})
_CACHED_TOKENS = 65_536


class TokenTexts:
    """What the tokens of one tokenizer say. Reads only, so any thread may call it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        decoders = _decoders(self._backend)
        self._bytes_of_letter = (
            {letter: byte for byte, letter in bytes_to_unicode().items()}
            if decoders == {"ByteLevel"}
            else None
        )
        self.tokens_are_bytes = bool(decoders) and (
            decoders == {"ByteLevel"} or decoders <= _SENTENCEPIECE_DECODERS
        )
        """Whether each token stands for certain bytes, whatever stands around it."""
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._added = frozenset(added)
        # Not all special tokens have a part that the tokenizer knows by name.
        self.special_ids = frozenset(tokenizer.all_special_ids).union(
            token_id for token_id, token in added.items() if token.special
        )
        """Tokens that are no text."""
        self._special_texts = {
            str(added[token_id]): token_id for token_id in self.special_ids if token_id in added
        }
        self.bytes_of = lru_cache(maxsize=_CACHED_TOKENS)(self.exact_bytes)

    def detokenizer(
        self,
        prompt_ids: Sequence[int],
        *,
        skip_special_tokens: bool,
        visible_markers: frozenset[str] = frozenset(),
    ) -> Detokenizer:
        """Makes the text of an output that continues a prompt.

        Where special tokens are left out, those whose texts are `visible_markers` are not.
        """
        hidden = self._hidden(visible_markers) if skip_special_tokens else frozenset()
        if not self.tokens_are_bytes:
            return WindowDetokenizer(self._decode_without(hidden), prompt_ids)
        if not hidden:
            return ByteDetokenizer(self.bytes_of, prompt_ids)
        bytes_of = self.bytes_of
        return ByteDetokenizer(
            lambda token_id: b"" if token_id in hidden else bytes_of(token_id), prompt_ids
        )

    def _hidden(self, visible_markers: frozenset[str]) -> frozenset[int]:
        if not visible_markers:
            return self.special_ids
        special_texts = self._special_texts
        return self.special_ids.difference(
            special_texts[text] for text in visible_markers if text in special_texts
        )

    def _decode_without(self, hidden: frozenset[int]) -> Decode:
        if hidden == self.special_ids:
            return self.decode
        if not hidden:
            return self.decode_all
        return lambda token_ids: self.decode_all(
            [token_id for token_id in token_ids if token_id not in hidden]
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens in a row, without special tokens."""
        return self._decode(token_ids, skip_special_tokens=True)

    def decode_all(self, token_ids: Sequence[int]) -> str:
        """The text of tokens in a row, special tokens included."""
        return self._decode(token_ids, skip_special_tokens=False)

    def _decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        if self._backend is not None:
            # Past the tokenizer's own wrapper, which costs more than the decoding.
            return str(self._backend.decode(token_ids, skip_special_tokens=skip_special_tokens))
        return str(
            self._tokenizer.decode(
                list(token_ids),
                skip_special_tokens=skip_special_tokens,
                clean_up_tokenization_spaces=False,
            )
        )

    def text_of(self, token_id: int) -> str:
        """A token's own text. Half a character shows as U+FFFD."""
        return self.bytes_of(token_id).decode(errors="replace")

    def exact_bytes(self, token_id: int) -> bytes:
        """The exact bytes that a token stands for."""
        token = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None:
            return b""
        if token_id in self.special_ids or token_id in self._added:
            return str(token).encode()
        if self._bytes_of_letter is not None:
            return b"".join(_letter_bytes(letter, self._bytes_of_letter) for letter in token)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes((int(token[3:5], 16),))
        return str(token).replace(_SPACE, " ").encode()


def _letter_bytes(letter: str, bytes_of_letter: dict[str, int]) -> bytes:
    byte = bytes_of_letter.get(letter)
    return letter.encode() if byte is None else bytes((byte,))


def _decoders(backend: Any) -> set[str]:
    """The kinds of steps by which a tokenizer decodes. Empty when it does not tell."""
    if backend is None or backend.decoder is None:
        return set()
    state = json.loads(backend.decoder.__getstate__())
    return {step["type"] for step in state.get("decoders", [state])}
