"""Contents of messages as the text that a text model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.mesh.errors import UnsupportedError


def with_text(message: Mapping[str, Any], at: int) -> dict[str, Any]:
    """A message whose content is a string.

    Args:
        message: its content is a string, a list of parts, or missing.
        at: its place in the conversation, for errors.

    Raises:
        UnsupportedError: a part is no text.
    """
    content = message.get("content")
    if content is None or isinstance(content, str):
        return {**message, "content": content or ""}
    texts = []
    for part in content:
        kind = part.get("type")
        if kind not in ("text", "refusal"):
            raise UnsupportedError(
                f"this model takes text only, not a part of type {kind!r}",
                field=f"prompt.messages[{at}].content",
            )
        texts.append(part[kind])
    return {**message, "content": "\n".join(texts)}
