"""Makes tiny encoder checkpoints with random weights and trained tokenizers. Nothing is
downloaded."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.models import CACHE, TEXTS

VERSION = 2
"""Raised when what is made below changes, so that no old checkpoint is found in the cache."""

HIDDEN = 32
POSITIONS = 64
"""Tokens that the models have positions for."""

_SHAPE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}

CORPUS = (
    *TEXTS,
    "Workers serve encoder models, and gateways balance the texts over them.",
    "A cross-encoder reads the query and the document together.",
    "Vectors of like texts lie near each other.",
)


@dataclass(frozen=True)
class Kind:
    """What a checkpoint is made of."""

    model_type: str
    tokenizer: str
    shape: Mapping[str, Any]
    labels: int = 0
    """0 for an embedding model, else those of a classifier."""
    modules: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Modules of sentence-transformers behind the model, with their configurations."""
    files: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Further files."""


def _pooling(mode: str) -> tuple[str, dict[str, Any]]:
    return "Pooling", {"word_embedding_dimension": HIDDEN, f"pooling_mode_{mode}": True}


_NORMALIZE: tuple[str, dict[str, Any]] = ("Normalize", {})
_DENSE = {
    "in_features": HIDDEN,
    "out_features": 24,
    "bias": True,
    "activation_function": "torch.nn.modules.activation.Tanh",
}
# Positions are counted on from the padding token's.
_ROBERTA = _SHAPE | {"max_position_embeddings": POSITIONS + 2}

KINDS: Mapping[str, Kind] = {
    "bert": Kind("bert", "word_piece", _SHAPE, modules=(_pooling("mean_tokens"), _NORMALIZE)),
    "bert-plain": Kind("bert", "word_piece", _SHAPE),
    "bert-cls-dense": Kind(
        "bert",
        "word_piece",
        _SHAPE,
        modules=(_pooling("cls_token"), ("Dense", _DENSE), _NORMALIZE),
        files=(("sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False}),),
    ),
    "bert-max": Kind("bert", "word_piece", _SHAPE, modules=(_pooling("max_tokens"),)),
    "bert-prompt": Kind(
        "bert",
        "word_piece",
        _SHAPE,
        modules=(_pooling("mean_tokens"),),
        files=(
            (
                "config_sentence_transformers.json",
                {"prompts": {"query": "Vectors of "}, "default_prompt_name": "query"},
            ),
        ),
    ),
    "xlm-roberta": Kind(
        "xlm-roberta", "unigram", _ROBERTA, modules=(_pooling("cls_token"), _NORMALIZE)
    ),
    "mpnet": Kind("mpnet", "unigram", _ROBERTA, modules=(_pooling("mean_tokens"),)),
    "modernbert": Kind(
        "modernbert",
        "word_piece",
        _SHAPE | {"global_attn_every_n_layers": 2, "local_attention": 16},
        modules=(_pooling("mean_tokens"),),
    ),
    "qwen3": Kind(
        "qwen3",
        "word_piece",
        _SHAPE | {"num_key_value_heads": 2, "head_dim": 8},
        modules=(_pooling("lasttoken"), _NORMALIZE),
    ),
    "bert-cross": Kind("bert", "word_piece", _SHAPE, labels=1),
    "xlm-roberta-cross": Kind("xlm-roberta", "unigram", _ROBERTA, labels=1),
    "bert-classes": Kind("bert", "word_piece", _SHAPE, labels=3),
}


def encoder(name: str = "bert") -> Path:
    """The folder of a tiny checkpoint, one of KINDS, made on first use."""
    folder = CACHE / f"encoder-{name}-{VERSION}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        # Made aside and moved, so that tests in other processes never see half of it.
        partial = Path(tempfile.mkdtemp(dir=CACHE))
        _make(partial, KINDS[name])
        try:
            partial.rename(folder)
        except OSError:
            shutil.rmtree(partial)
    return folder


def _make(folder: Path, kind: Kind) -> None:
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    tokenizer = _TOKENIZERS[kind.tokenizer]()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    config = AutoConfig.for_model(
        kind.model_type,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
        **({"num_labels": kind.labels} if kind.labels else {}),
        **kind.shape,
    )
    family: Any = AutoModelForSequenceClassification if kind.labels else AutoModel
    model = family.from_config(config)
    with torch.no_grad():
        # Larger than at the start of a training, so that texts get vectors of their own.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    modules = [_module(0, "", "Transformer")]
    for number, (name, settings) in enumerate(kind.modules, 1):
        path = f"{number}_{name}"
        modules.append(_module(number, path, name))
        _write(folder / path / "config.json", settings)
        if name == "Dense":
            _write_dense(folder / path, settings)
    if kind.modules:
        _write(folder / "modules.json", modules)
    for name, content in kind.files:
        _write(folder / name, content)


def _module(number: int, path: str, name: str) -> dict[str, Any]:
    kind = f"sentence_transformers.models.{name}"
    return {"idx": number, "name": str(number), "path": path, "type": kind}


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))


def _write_dense(folder: Path, settings: Mapping[str, Any]) -> None:
    import torch
    from safetensors.torch import save_file

    linear = torch.nn.Linear(settings["in_features"], settings["out_features"])
    save_file(
        {"linear.weight": linear.weight.detach(), "linear.bias": linear.bias.detach()},
        folder / "model.safetensors",
    )


def _word_piece() -> Any:
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizer

    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(CORPUS, vocab_size=300, show_progress=False)
    return BertTokenizer(vocab=trained.get_vocab(), model_max_length=POSITIONS)


def _unigram() -> Any:
    """As sentencepiece has it: pieces with their scores, spaces as U+2581."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import XLMRobertaTokenizer

    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator(CORPUS, trainer)
    pieces = json.loads(trained.to_str())["model"]["vocab"]
    vocab = [(piece, score) for piece, score in pieces]
    return XLMRobertaTokenizer(vocab=[*vocab, ("<mask>", 0.0)], model_max_length=POSITIONS)


_TOKENIZERS: dict[str, Callable[[], Any]] = {"word_piece": _word_piece, "unigram": _unigram}
