"""Chat templates as the families have them, each as small as it can be."""

from __future__ import annotations

from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

from services.worker.chat_formats.names import AUTO
from services.worker.engines.transformers.text.chat_template import ChatTemplate, chat_format_of
from tests.models import checkpoint

NAMES = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.jinja")))
END_TOKENS = (
    *(
        "<|im_end|>\n",
        "<|eot_id|>",
        "<|eot|>",
        "</s>",
        "<｜end▁of▁sentence｜>",
        "<|return|>",
        "<|call|>",
    ),
    *("<|end_of_text|>\n", "<|end|>", "<end_of_turn>\n", "\n"),
)


def source(name: str) -> str:
    """The text of a template."""
    return (Path(__file__).parent / f"{name}.jinja").read_text()


@cache
def chat_template(name: str, chat_format: str = AUTO) -> ChatTemplate:
    """A tokenizer's chat template, with the format that its text tells."""
    tokenizer = copy(_tokenizer())
    tokenizer.chat_template = source(name)
    return ChatTemplate(tokenizer, chat_format_of(tokenizer, chat_format))


@cache
def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    made: Any = AutoTokenizer.from_pretrained(checkpoint())
    made.bos_token, made.eos_token = "<s>", "</s>"
    return made
