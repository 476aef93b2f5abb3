"""The vocabularies that masks are made over."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path("build/bench-constraints")
LARGE_SIZE = 128_000
TRAINING_CHARACTERS = 60_000_000
DEMO = "demo model"
LARGE = "byte-level BPE of 128,000"
NAMES = (DEMO, LARGE)

_END = "<|end|>"
_SUFFIXES = frozenset({".py", ".pyi", ".md", ".rst", ".txt", ".json"})
_MAX_FILE_BYTES = 2_000_000


def tokenizer_of(name: str) -> Any:
    """The tokenizer of that name. The large one is trained once, in about a minute."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if name == DEMO:
        return AutoTokenizer.from_pretrained("examples/demo_model/model")
    file = FOLDER / "large.json"
    if not file.exists():
        _train(file)
    return PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=_END)


def _train(file: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LARGE_SIZE,
        special_tokens=[_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(), trainer)
    file.parent.mkdir(parents=True, exist_ok=True)
    bpe.save(str(file))


def _texts() -> Iterator[str]:
    """What Python and its installed packages say: code, documentation, tables of many languages."""
    characters = 0
    for root in (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"]):
        for path in sorted(Path(root).rglob("*")):
            if path.suffix not in _SUFFIXES or not path.is_file():
                continue
            if path.stat().st_size > _MAX_FILE_BYTES:
                continue
            text = path.read_text(errors="ignore")
            characters += len(text)
            yield text
            if characters > TRAINING_CHARACTERS:
                return
