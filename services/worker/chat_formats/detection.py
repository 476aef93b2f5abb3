"""Tells the chat format of a model from its chat template and its special tokens."""

from __future__ import annotations

from collections.abc import Collection

from services.worker.chat_formats.base import ChatFormat
from services.worker.chat_formats.names import by_name


def detect(template: str, special_tokens: Collection[str]) -> ChatFormat:
    """The format in which a model writes.

    Args:
        template: its chat template. The one for tools, where it has several.
        special_tokens: texts of the vocabulary's added tokens.
    """
    thinks = _thinks(template, special_tokens)
    if _has_place_for_tools(template) and "<tool_call>" in template:
        return by_name("qwen3" if thinks else "hermes")
    return by_name("think" if thinks else "generic")


def _thinks(template: str, special_tokens: Collection[str]) -> bool:
    return "</think>" in template or "<think>" in special_tokens


def _has_place_for_tools(template: str) -> bool:
    return "tools" in template
