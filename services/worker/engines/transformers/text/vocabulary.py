"""A tokenizer's vocabulary as constraints need it: what each token adds to a text."""

from __future__ import annotations

import random
from typing import Any

from services.worker.engines.constraints import Vocabulary
from services.worker.engines.transformers.text.token_texts import TokenTexts

_PROBES = 32
_PROBE_TOKENS = 12


def vocabulary_of(
    tokenizer: Any, texts: TokenTexts, *, size: int, end_ids: frozenset[int]
) -> Vocabulary | None:
    """The vocabulary of a model with so many logits.

    None where the text of a token depends on its neighbours in such a way that no bytes stand for
    it.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special_ids = texts.special_ids
    if texts.tokens_are_bytes:
        token_bytes = [texts.exact_bytes(token_id) for token_id in range(size)]
    else:
        token_bytes = _added_bytes(texts, size)
        ordinary = [
            token_id
            for token_id, piece in enumerate(token_bytes)
            if piece and token_id not in special_ids
        ]
        if not _adds_up(texts, token_bytes, ordinary):
            return None
    return Vocabulary(
        token_bytes,
        special_ids,
        end_ids,
        {str(token): token_id for token_id, token in added.items() if token_id < size},
    )


def _added_bytes(texts: TokenTexts, size: int) -> list[bytes]:
    """What each token adds behind another: where a text begins, decoders strip a space."""
    anchor = next(
        token_id
        for token_id in range(size)
        if token_id not in texts.special_ids and texts.decode_all([token_id]).strip()
    )
    start = texts.decode_all([anchor])
    found = []
    for token_id in range(size):
        text = texts.decode_all([anchor, token_id])
        found.append(text[len(start) :].encode() if text.startswith(start) else b"")
    return found


def _adds_up(texts: TokenTexts, token_bytes: list[bytes], ordinary: list[int]) -> bool:
    """Whether texts are what their tokens add, for some texts drawn at random."""
    draw = random.Random(0)
    for _ in range(_PROBES):
        first, *others = draw.choices(ordinary, k=_PROBE_TOKENS)
        text = texts.decode_all([first]).encode() + b"".join(token_bytes[each] for each in others)
        if texts.decode_all([first, *others]).encode() != text:
            return False
    return True
