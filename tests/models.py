"""Makes tiny checkpoints with random weights and a real tokenizer. Nothing is downloaded."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import families

CACHE = Path(__file__).parents[1] / "build" / "test_models"
VERSION = 4
"""Raised when what is made below changes, so that no old checkpoint is found in the cache."""
CONTEXT_TOKENS = families.CONTEXT_TOKENS

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Les élèves étudient à l'école: ça va être génial, n'est-ce pas?",
    "Grüße aus München! 東京から、こんにちは。 Привет, мир. 🙂🌊",
    "Numbers: 0 1 2 3 4 5 6 7 8 9, and then some more words to merge and merge again.",
)


def checkpoint(model_type: str = "llama", *, tokenizer: str = "byte_level") -> Path:
    """The folder of a tiny checkpoint, made on first use.

    `tokenizer` is "byte_level" (as of GPT-2 and Llama 3, with a chat template) or "metaspace" (as
    of Llama 2: spaces as U+2581, unknown characters as byte tokens; without a chat template).
    """
    folder = CACHE / f"{model_type}-{tokenizer}-{VERSION}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        # Made aside and moved, so that tests in other processes never see half of it.
        partial = Path(tempfile.mkdtemp(dir=CACHE))
        _make(partial, model_type, tokenizer)
        try:
            partial.rename(folder)
        except OSError:
            shutil.rmtree(partial)
    return folder


def edit_config(source: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a checkpoint with another configuration."""
    shutil.copytree(source, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def _make(folder: Path, model_type: str, tokenizer: str) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    made = _TOKENIZERS[tokenizer]()
    made.save_pretrained(folder)
    torch.manual_seed(len(model_type))
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(made),
        eos_token_id=made.eos_token_id,
        bos_token_id=None,
        pad_token_id=None,
        **families.CONFIGS[model_type],
    )
    loader: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = loader.from_config(config)
    with torch.no_grad():
        # Larger than at the start of a training, so that the likeliest tokens stand out.
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=10.0 if "relative_attention_bias" in name else 0.2)
    model.save_pretrained(folder)


def _byte_level() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|end|>",
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = CHAT_TEMPLATE
    return made


def _metaspace() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=["<unk>", "<s>", "</s>", *byte_tokens],
        limit_alphabet=70,
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS, trainer)
    # The trainer marks byte tokens as special, which they are not.
    state = json.loads(bpe.to_str())
    state["added_tokens"] = [each for each in state["added_tokens"] if each["id"] < 3]
    bpe = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token=AddedToken("<unk>", special=True),
        eos_token=AddedToken("</s>", special=True),
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )


_TOKENIZERS: dict[str, Callable[[], Any]] = {"byte_level": _byte_level, "metaspace": _metaspace}
