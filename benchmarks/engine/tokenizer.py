"""A byte-level BPE tokenizer made by rule: its words are one token each.

So a prompt of n words is n tokens for every server that is given the text, and the same n tokens
for every engine that is given the ids.
"""

from __future__ import annotations

import itertools
from typing import Any

VOCABULARY_SIZE = 32_000
CONTEXT_TOKENS = 8192

END = "<end>"
_SPECIAL = ("<pad>", "<begin>", END)
_SPACE = "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"
_SYLLABLES = tuple(map("".join, itertools.product("bcdfghjklmnpqrstvwxz", "aeiou")))
_PAIRS = tuple(itertools.product(_SYLLABLES, _SYLLABLES))

WORDS = tuple(first + second for first, second in _PAIRS)
"""Each is one token, with the space before it: two syllables."""

_TEMPLATE = (
    "{% for message in messages %} {{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{% endif %}"
)


def _vocabulary_and_merges(letters: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    merges = [(syllable[0], syllable[1]) for syllable in _SYLLABLES]
    merges += list(_PAIRS)
    merges += [(_SPACE, word) for word in WORDS]
    tokens = [*_SPECIAL, *letters, *map("".join, merges)]
    # Words of three syllables without a space fill the vocabulary.
    longer = itertools.product(WORDS, _SYLLABLES)
    more = list(itertools.islice(longer, VOCABULARY_SIZE - len(tokens)))
    tokens += map("".join, more)
    return {token: number for number, token in enumerate(tokens)}, merges + more


def make_tokenizer() -> Any:
    """The tokenizer, as transformers has it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary, merges = _vocabulary_and_merges(letters)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    pad, begin, end = _SPECIAL
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=begin,
        eos_token=end,
        model_max_length=CONTEXT_TOKENS,
    )
    made.chat_template = _TEMPLATE
    return made


def token_of(word: str) -> str:
    """The token of one of WORDS, as the vocabulary spells it."""
    return _SPACE + word
