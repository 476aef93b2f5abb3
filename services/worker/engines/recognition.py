"""Which engine a checkpoint is for, by what it says of itself. Imports no library of models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger()

ENCODER = "encoder"
GENERATOR = "transformers"

SENTENCE_TRANSFORMERS = "modules.json"
"""Where a checkpoint of sentence-transformers lists what makes a vector of a text."""

_GENERATE = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_ENCODE = (
    "ForSequenceClassification",
    "ForMaskedLM",
    "ForTextEncoding",
    "EncoderModel",
    "EmbeddingModel",
    "Model",
)
"""Endings of the names of architectures. Those that generate are looked for first: a bare "Model"
has no head to generate with."""


def recognize_engine(model_path: str, revision: str | None = None) -> str:
    """ENCODER for checkpoints that embed or score texts, GENERATOR for all others.

    A checkpoint that cannot be read is a GENERATOR's: that engine then says what is wrong with it.

    Args:
        model_path: a folder, or a hub id, of which two small files are fetched.
        revision: of a hub id.
    """
    # First what every checkpoint has: where that is not to be had, nothing else is looked for.
    config = _find(model_path, revision, "config.json")
    if config is None:
        return GENERATOR
    if _find(model_path, revision, SENTENCE_TRANSFORMERS) is not None:
        return ENCODER
    return engine_of(_read(config))


def engine_of(config: Mapping[str, Any]) -> str:
    """The engine for a checkpoint with this config.json."""
    named: Any = config.get("architectures")
    architectures = [str(each) for each in named] if isinstance(named, list) else []
    if any(each.endswith(_GENERATE) for each in architectures):
        return GENERATOR
    return ENCODER if any(each.endswith(_ENCODE) for each in architectures) else GENERATOR


def _find(model_path: str, revision: str | None, name: str) -> Path | None:
    folder = Path(model_path).expanduser()
    if folder.is_dir():
        file = folder / name
        return file if file.is_file() else None
    if folder.exists() or model_path.count("/") > 1 or model_path.startswith((".", "~", "/")):
        return None
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(model_path, name, revision=revision))
    except Exception as error:
        # Many checkpoints have no such file; where the hub cannot be reached, the engine says so.
        log.debug("cannot look at the checkpoint", model=model_path, file=name, error=repr(error))
        return None


def _read(config: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
