"""The model that is measured: a Llama of 41.7 million random weights, made once.

Its answers mean nothing; its work is that of any Llama of its shape.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.engine.tokenizer import CONTEXT_TOKENS, END, VOCABULARY_SIZE, make_tokenizer

FOLDER = Path("build/bench-engine/llama-40m")
SHAPE: dict[str, Any] = {
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "intermediate_size": 1376,
    "vocab_size": VOCABULARY_SIZE,
    "max_position_embeddings": CONTEXT_TOKENS,
    "tie_word_embeddings": True,
}
_SEED = 0


def ensure_model(folder: Path = FOLDER) -> Path:
    """The folder of the model, which is made if it is not there."""
    if not Path(folder, "config.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
            _make(Path(unfinished, "model"))
            os.rename(Path(unfinished, "model"), folder)
    return folder


def _make(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(_SEED)
    end_id = tokenizer.convert_tokens_to_ids(END)
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": end_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, **ids))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _name_for_older_releases(Path(folder, "tokenizer_config.json"))


def _name_for_older_releases(file: Path) -> None:
    """FastChat runs on a transformers that knows the tokenizer's class by this name only."""
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(fields | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2))
