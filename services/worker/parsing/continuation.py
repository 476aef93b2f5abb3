"""Parsers of outputs that go on with a message that the request has begun."""

from __future__ import annotations

from services.worker.chat_formats.base import ChatFormat, OutputParser, ToolUse
from services.worker.engines.base import ChatPrompt


def parser_of(
    chat_format: ChatFormat, prompt: ChatPrompt, rendered: str, tool_use: ToolUse
) -> OutputParser:
    """A parser that stands where the output begins: within the reasoning, too, where a message that
    is continued has begun some.

    Args:
        rendered: what the model reads of the conversation.
    """
    begun = _begun(prompt, rendered)
    if begun:
        parser = chat_format.parser(rendered.removesuffix(begun), tool_use)
        parser.feed(begun.rstrip())
        if parser.is_reasoning:
            return parser
    return chat_format.parser(rendered, tool_use)


def _begun(prompt: ChatPrompt, rendered: str) -> str:
    """What the output goes on with. Empty where the template has written it otherwise."""
    if not prompt.continue_final_message:
        return ""
    content = prompt.messages[-1].get("content")
    if not isinstance(content, str):
        return ""
    return next((each for each in (content, content.strip()) if rendered.endswith(each)), "")
