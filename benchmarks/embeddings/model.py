"""The model that is measured, with random weights, and the texts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "build" / "benchmark_models" / "minilm-shape"
SHAPE: dict[str, Any] = {
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
}
"""Of all-MiniLM-L6-v2: 11 million parameters besides those of its words."""

WORDS = 2000
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def word(number: int) -> str:
    """A word that is one token."""
    return f"w{number}"


def texts(count: int, *, seed: int = 1) -> list[str]:
    """Texts as passages are: most have some tens of words, few have hundreds."""
    draw = random.Random(seed)
    lengths = [min(250, max(3, round(draw.lognormvariate(3.3, 0.8)))) for _ in range(count)]
    return [" ".join(word(draw.randrange(WORDS)) for _ in range(length)) for length in lengths]


def make() -> Path:
    """The folder of the checkpoint, made on first use."""
    if FOLDER.exists():
        return FOLDER
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(1)
    vocabulary = [*_SPECIAL, *map(word, range(WORDS))]
    FOLDER.mkdir(parents=True)
    tokenizer = BertTokenizer(
        vocab={token: at for at, token in enumerate(vocabulary)}, model_max_length=512
    )
    tokenizer.save_pretrained(FOLDER)
    BertModel(BertConfig(vocab_size=len(vocabulary), **SHAPE)).save_pretrained(FOLDER)
    return FOLDER
