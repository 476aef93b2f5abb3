"""Names, known and invented, so that a model learns to copy a name rather than recall it."""

from __future__ import annotations

from random import Random

from corpus.letters import invented_word
from corpus.vocabulary import NAMES


def name(rng: Random) -> str:
    return rng.choice(NAMES) if rng.random() < 0.6 else invented_word(rng).capitalize()
