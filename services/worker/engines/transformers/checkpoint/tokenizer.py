"""Loads a checkpoint's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from services.mesh.errors import StartError
from services.worker.engines.transformers.checkpoint.source import Source, read_json

_FILES = ("tokenizer.json", "tokenizer_config.json")
_VOCABULARIES = ("tokenizer.json", "*.model", "*.tiktoken", "vocab.*", "merges.txt")


def load_tokenizer(source: Source, chat_template_path: Path | None) -> Any:
    """The tokenizer, with the chat template of the file instead of its own where there is one.

    Raises:
        StartError: there is no tokenizer, one of its files is damaged, or the template cannot be
            read.
    """
    if source.folder is not None:
        for name in _FILES:
            if (source.folder / name).is_file():
                read_json(source.folder / name)
    try:
        tokenizer = source.load(
            "the tokenizer", lambda: AutoTokenizer.from_pretrained(source.path, **source.options)
        )
    except StartError:
        folder = source.folder
        if folder is not None and not any(any(folder.glob(each)) for each in _VOCABULARIES):
            raise _absence(source) from None
        raise
    # Where files are missing, some tokenizers of transformers start with an empty vocabulary.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise _absence(source)
    if chat_template_path is not None:
        tokenizer.chat_template = _read_template(chat_template_path)
    return tokenizer


def _absence(source: Source) -> StartError:
    return StartError(
        f"{source.path} has no tokenizer that can be loaded: put the {' and '.join(_FILES)} of the "
        "model beside its config.json"
    )


def _read_template(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"cannot read the chat template {path}: {error}") from error
