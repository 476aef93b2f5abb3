"""Random walks through a form: what a model with random weights would write."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np

from services.worker.engines.constraints import TokenConstraint, Vocabulary, words_for
from services.worker.engines.forms import Form
from services.worker.engines.guidance.compiler import GuidanceCompiler
from services.worker.engines.transformers.text.token_texts import TokenTexts
from services.worker.engines.transformers.text.vocabulary import vocabulary_of
from tests.models import checkpoint


@cache
def vocabulary(kind: str = "byte_level") -> Vocabulary:
    """That of a test checkpoint."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint(tokenizer=kind))
    made = vocabulary_of(
        tokenizer,
        TokenTexts(tokenizer),
        size=len(tokenizer),
        end_ids=frozenset({tokenizer.eos_token_id}),
    )
    assert made is not None
    return made


@cache
def compiler(kind: str = "byte_level") -> GuidanceCompiler:
    return GuidanceCompiler(vocabulary(kind))


def allowed(constraint: TokenConstraint, size: int) -> list[int]:
    """The tokens that may come next."""
    words = np.empty(words_for(size), dtype=np.int32)
    constraint.fill_allowed(words)
    bits = np.unpackbits(words.view(np.uint8), count=size, bitorder="little")
    return [int(each) for each in np.flatnonzero(bits)]


def walk(
    form: Form, seed: int, *, kind: str = "byte_level", max_tokens: int = 2000
) -> tuple[list[int], bool]:
    """Token ids of an output drawn evenly from what may come, and whether it came to its end."""
    known = vocabulary(kind)
    constraint = compiler(kind).compile(form)
    draw = random.Random(seed)
    token_ids: list[int] = []
    while len(token_ids) < max_tokens:
        may_come = allowed(constraint, len(known.token_bytes))
        assert may_come, f"nothing may follow {text_of(token_ids, kind)!r}"
        token_id = draw.choice(may_come)
        if token_id in known.end_ids:
            return token_ids, True
        constraint.accept(token_id)
        token_ids.append(token_id)
        if constraint.is_complete:
            return token_ids, True
    return token_ids, False


def text_of(token_ids: list[int], kind: str = "byte_level") -> str:
    """The text that tokens make. Not a whole one where it ends inside a character."""
    return b"".join(vocabulary(kind).token_bytes[each] for each in token_ids).decode()
