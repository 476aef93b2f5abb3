"""Forms over tokenizers of every kind: the text that a client reads is what the form allows."""

from __future__ import annotations

import json
import random
import string
from typing import Any

import jsonschema
import pytest

from services.worker.engines.constraints import Vocabulary
from services.worker.engines.forms import Form, InOrder, Json, Literal, Marker, OneOf
from services.worker.engines.guidance.compiler import GuidanceCompiler
from services.worker.engines.transformers.text.token_texts import TokenTexts
from services.worker.engines.transformers.text.vocabulary import vocabulary_of
from tests.constrained import allowed

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "words": {"type": "array", "items": {"enum": ["one", "for all"]}, "maxItems": 3},
        "number": {"type": "integer", "maximum": 50},
    },
    "required": ["words", "number"],
    "additionalProperties": False,
}
LETTERS = [*string.ascii_letters, *string.digits, *string.punctuation]
PIECES = ["one", "all", "number", "words", '":']
END = "</s>"


def fast(model: Any, decoder: Any) -> Any:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(model)
    made.decoder = decoder
    made.add_special_tokens([END])
    made.add_tokens([AddedToken("<call>", special=False, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=END, clean_up_tokenization_spaces=False
    )


def unigram() -> Any:
    """As T5's: pieces with a score, a space as U+2581, no bytes."""
    from tokenizers import decoders, models

    pieces = ["<unk>", "\u2581", "\u2581for", "\u2581all", *PIECES, *LETTERS]
    model = models.Unigram([(piece, -float(rank)) for rank, piece in enumerate(pieces)], unk_id=0)
    return fast(model, decoders.Metaspace())


def word_piece() -> Any:
    """As BERT's: what continues a word is marked, and a space is between all else."""
    from tokenizers import decoders, models

    pieces = ["[UNK]", *LETTERS, *(f"##{piece}" for piece in (*LETTERS, *PIECES))]
    model = models.WordPiece({piece: number for number, piece in enumerate(pieces)})
    return fast(model, decoders.WordPiece(prefix="##", cleanup=False))


def suffixes() -> Any:
    """As GPT-1's: the end of a word is marked, and is a space unless the text ends there."""
    from tokenizers import decoders, models

    vocabulary = {letter: number for number, letter in enumerate(LETTERS)}
    ends = {f"{letter}</w>": number for number, letter in enumerate(LETTERS, len(LETTERS))}
    model = models.BPE(vocab=vocabulary | ends, merges=[], end_of_word_suffix="</w>")
    return fast(model, decoders.BPEDecoder(suffix="</w>"))


def known(tokenizer: Any, *, more: int = 0) -> Vocabulary | None:
    return vocabulary_of(
        tokenizer,
        TokenTexts(tokenizer),
        size=len(tokenizer) + more,
        end_ids=frozenset({tokenizer.eos_token_id}),
    )


def said(tokenizer: Any, vocabulary: Vocabulary, form: Form, seed: int) -> str:
    """The text that a client reads of an output that takes any token that may come."""
    constraint = GuidanceCompiler(vocabulary).compile(form)
    draw = random.Random(seed)
    prompt = tokenizer.convert_tokens_to_ids(["a", "b"])
    text = TokenTexts(tokenizer).detokenizer(prompt, skip_special_tokens=True)
    pieces = []
    while not constraint.is_complete:
        token_id = draw.choice(allowed(constraint, len(vocabulary.token_bytes)))
        if token_id in vocabulary.end_ids:
            break
        constraint.accept(token_id)
        pieces.append(text.feed((token_id,)))
    return "".join(pieces) + text.flush()


@pytest.mark.parametrize("make", [unigram, word_piece])
def test_the_text_has_the_form(make: Any) -> None:
    tokenizer = make()
    vocabulary = known(tokenizer, more=7)
    assert vocabulary is not None
    for seed in range(6):
        text = said(tokenizer, vocabulary, Json(json.dumps(SCHEMA)), seed)
        jsonschema.validate(json.loads(text), SCHEMA)
    choices = OneOf((Literal("one two"), Literal("for all")))
    assert said(tokenizer, vocabulary, choices, 1) in ("one two", "for all")


def test_an_added_token_is_a_marker_though_it_is_not_special() -> None:
    tokenizer = unigram()
    vocabulary = known(tokenizer)
    assert vocabulary is not None
    constraint = GuidanceCompiler(vocabulary).compile(InOrder((Marker("<call>"), Literal("a"))))
    may_come = allowed(constraint, len(vocabulary.token_bytes))
    assert may_come == [tokenizer.convert_tokens_to_ids("<call>")]


def test_a_tokenizer_whose_tokens_are_no_bytes_holds_nothing() -> None:
    assert known(suffixes()) is None
