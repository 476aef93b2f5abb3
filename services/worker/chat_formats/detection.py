"""Tells the chat format of a model from its chat template and its added tokens."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from services.worker.chat_formats import deepseek, harmony, hermes, mistral, qwen3_coder
from services.worker.chat_formats.base import ChatFormat
from services.worker.chat_formats.names import by_name

_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_TOOLS = re.compile(r"\btools\b")


class _Sign(NamedTuple):
    """What a template tells a family by."""

    name: str
    thinking: str
    """The name where the model thinks between <think> and </think>."""
    holds: tuple[str, ...]
    lacks: tuple[str, ...] = ()


_SIGNS = (
    _Sign("pythonic", "pythonic", ("[func_name1(",)),
    _Sign("qwen3-coder", "qwen3.5", (qwen3_coder.FUNCTION, qwen3_coder.PARAMETER)),
    # GLM writes the arguments of a call as <arg_key> and <arg_value>.
    _Sign("hermes", "qwen3", (hermes.OPENING,), lacks=("<arg_key>",)),
    _Sign("deepseek-v3", "deepseek-r1", (deepseek.CALL_BEGIN, "```json")),
    _Sign("deepseek-v3.1", "deepseek-v3.1", (deepseek.CALL_BEGIN,)),
    _Sign("magistral", "magistral", (mistral.OPENING, mistral.THINK.opening)),
    _Sign("mistral-v11", "mistral-v11", (mistral.OPENING, mistral.ARGUMENTS)),
    _Sign("mistral", "mistral", (mistral.OPENING,)),
    _Sign("phi4", "phi4", ("<|tool_call|>", "<|/tool_call|>")),
    _Sign("granite", "granite", ("<|tool_call|>",)),
    _Sign("llama3", "llama3", ("<|start_header_id|>", '"parameters"')),
    _Sign("llama3", "llama3", ("<|header_start|>", '"parameters"')),
)


def detect(template: str, special_tokens: Collection[str]) -> ChatFormat:
    """The format in which a model writes.

    Where the template tells of tools in a way that is not known here, they are described by us, as
    where it tells of none.

    Args:
        template: its chat template. The one for tools, where it has several.
        special_tokens: texts of the tokens that were added to its vocabulary.
    """
    template = _COMMENT.sub("", template)
    if harmony.CHANNEL in template and harmony.MESSAGE in template:
        return by_name("gpt-oss")
    thinks = "</think>" in template or "<think>" in special_tokens
    if _TOOLS.search(template):
        for sign in _SIGNS:
            if all(each in template for each in sign.holds) and not any(
                each in template for each in sign.lacks
            ):
                return by_name(sign.thinking if thinks else sign.name)
    return by_name("think" if thinks else "generic")
