"""Renders and tokenizes prompts for the scripted engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.mesh.errors import InvalidRequestError
from services.worker.engines.base import ChatPrompt, Prompt
from services.worker.engines.scripted import vocabulary


def prompt_text(prompt: ChatPrompt | str) -> str:
    """A text as it is; a conversation as lines of "role: content".

    Raises:
        InvalidRequestError: a conversation is empty or holds what is not text.
    """
    if isinstance(prompt, str):
        return prompt
    if prompt.rendered is not None:
        return prompt.rendered
    if not prompt.messages:
        raise InvalidRequestError("prompt.messages is empty", field="prompt.messages")
    lines = [
        f"{message.get('role', '')}: {_content_text(message, f'prompt.messages[{index}].content')}"
        for index, message in enumerate(prompt.messages)
    ]
    if prompt.continue_final_message:
        return "\n".join(lines)
    return "\n".join([*lines, "assistant:" if prompt.add_generation_prompt else ""])


def last_said(prompt: Prompt) -> str:
    """The last message of a conversation, or all of a plain prompt."""
    if isinstance(prompt, ChatPrompt):
        last = len(prompt.messages) - 1
        return _content_text(prompt.messages[last], f"prompt.messages[{last}].content")
    if isinstance(prompt, str):
        return prompt
    return vocabulary.decode(prompt, skip_special_tokens=False)


def prompt_token_ids(prompt: Prompt) -> list[int]:
    """Token ids of a prompt in any of its forms.

    Raises:
        InvalidRequestError: the prompt is empty, names an unknown token, or holds what is not text.
    """
    if isinstance(prompt, tuple):
        check_token_ids(prompt, "prompt.token_ids")
        token_ids = list(prompt)
    else:
        token_ids = vocabulary.encode(prompt_text(prompt))
    if not token_ids:
        raise InvalidRequestError("the prompt has no tokens; give at least one", field="prompt")
    return token_ids


def check_token_ids(token_ids: tuple[int, ...], field: str) -> None:
    """Checks that all ids are in the vocabulary.

    Raises:
        InvalidRequestError: one is not; the error names `field`.
    """
    for token_id in token_ids:
        if not 0 <= token_id < vocabulary.VOCABULARY_SIZE:
            raise InvalidRequestError(
                f"{field} holds {token_id}, but token ids are 0 to "
                f"{vocabulary.VOCABULARY_SIZE - 1}",
                field=field,
            )


def _content_text(message: Mapping[str, Any], field: str) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in content:
        kind = part.get("type")
        if kind not in ("text", "refusal"):
            raise InvalidRequestError(
                f"{field} holds a part of type {kind!r}; this model takes text only",
                field=field,
            )
        texts.append(str(part.get(kind, "")))
    return "".join(texts)
