"""Random prompts, no two alike, as words and as ids that mean the same."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine.tokenizer import WORDS, token_of


@dataclass(frozen=True)
class Prompt:
    """One prompt in both forms."""

    ids: tuple[int, ...]
    text: str


def word_ids(model_folder: Path) -> Mapping[str, int]:
    """The id of each word, read from the model's tokenizer."""
    content = json.loads(Path(model_folder, "tokenizer.json").read_text())
    vocabulary: dict[str, int] = content["model"]["vocab"]
    return {word: vocabulary[token_of(word)] for word in WORDS}


def random_prompts(ids: Mapping[str, int], tokens: int, seed: str) -> Iterator[Prompt]:
    """Prompts of so many tokens, without end. The same seed gives the same ones."""
    source = random.Random(seed)
    words = list(ids)
    while True:
        chosen = source.choices(words, k=tokens)
        yield Prompt(tuple(ids[word] for word in chosen), "".join(f" {word}" for word in chosen))
