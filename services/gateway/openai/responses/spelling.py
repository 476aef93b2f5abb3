"""The names of fields in /v1/responses, where messages are made of items."""

from __future__ import annotations

import re

from services.gateway.openai.responses.conversation import Conversation
from services.gateway.openai.spelling import Spelling

_NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
}
_NESTING = (
    (re.compile(r"\btool_choice\.mode\b"), "tool_choice"),
    (re.compile(r"(content\[\d+\])\.image\.url\b"), r"\1.image_url"),
    (re.compile(r"(content\[\d+\])\.(image|audio|file)\b"), r"\1"),
)


class ResponseSpelling(Spelling):
    """Names the item that a message was made of, once the conversation is known."""

    def __init__(self) -> None:
        super().__init__(_NAMES, constraint="text.format", nesting=_NESTING)
        self.conversation: Conversation | None = None

    def words(self, message: str) -> str:
        """A message with every path in it in OpenAI's spelling."""
        if self.conversation is not None:
            message = self.conversation.spelled(message)
        return super().words(message)
