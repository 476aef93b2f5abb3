"""What transformers itself generates: the reference for the engine's tokens."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any


@cache
def reference(folder: Path) -> tuple[Any, Any]:
    """The model, in float32, and its tokenizer."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
    )

    torch.set_num_threads(1)
    has_encoder = AutoConfig.from_pretrained(folder).is_encoder_decoder
    loader: Any = AutoModelForSeq2SeqLM if has_encoder else AutoModelForCausalLM
    model = loader.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


@cache
def generate(folder: Path, prompt: str, new_tokens: int) -> list[int]:
    """The likeliest output."""
    import torch

    model, tokenizer = reference(folder)
    # Some keep in their modules what they computed last.
    model = copy.deepcopy(model)
    ids = tokenizer(prompt, return_tensors="pt")
    ids.pop("token_type_ids", None)
    with torch.inference_mode():
        row = model.generate(**ids, max_new_tokens=new_tokens, do_sample=False, pad_token_id=0)
    start = 1 if model.config.is_encoder_decoder else ids["input_ids"].shape[1]
    made: list[int] = row[0, start:].tolist()
    return made
