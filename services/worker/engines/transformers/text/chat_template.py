"""Renders conversations with a checkpoint's chat template."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2

from services.mesh.errors import InvalidRequestError, UnsupportedError
from services.worker.chat_formats.base import ChatFormat
from services.worker.chat_formats.detection import detect
from services.worker.chat_formats.names import AUTO, by_name
from services.worker.chat_templates.fitting import fitted
from services.worker.chat_templates.traits import TemplateTraits, traits_of
from services.worker.engines.base import ChatPrompt

_REFUSALS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What comes of a template that a conversation does not suit."""
_KEPT_TRAITS = 16
"""Requests may bring templates of their own: those of so many are remembered."""


class ChatTemplate:
    """The tokenizer's chat template, or one that a request brings. For one thread at a time."""

    def __init__(self, tokenizer: Any, chat_format: ChatFormat) -> None:
        self._tokenizer = tokenizer
        self.chat_format = chat_format
        self._reserved_arguments = _reserved_arguments(tokenizer)
        self._traits = lru_cache(maxsize=_KEPT_TRAITS)(self._find_traits)

    @property
    def is_there(self) -> bool:
        """Whether the tokenizer has one."""
        return bool(self._tokenizer.chat_template)

    def render(self, prompt: ChatPrompt) -> str:
        """The text of a conversation.

        Raises:
            InvalidRequestError: the template refuses it.
            UnsupportedError: there is no template, or no place in it for what the prompt holds.
        """
        self._check(prompt)
        try:
            source = self._tokenizer.get_chat_template(prompt.chat_template, prompt.tools or None)
            fitting = fitted(prompt, self._traits(source), self.chat_format)
            text: str = self._tokenizer.apply_chat_template(
                list(fitting.messages),
                tools=[dict(tool) for tool in fitting.tools] or None,
                chat_template=source,
                add_generation_prompt=prompt.add_generation_prompt,
                continue_final_message=prompt.continue_final_message,
                tokenize=False,
                **fitting.template_arguments,
            )
        except jinja2.TemplateSyntaxError as error:
            raise InvalidRequestError(
                f"the chat template is wrong: {error.message}", field="prompt.chat_template"
            ) from error
        except _REFUSALS as error:
            raise InvalidRequestError(
                f"the model's chat template refuses the conversation: {error}",
                field="prompt.messages",
            ) from error
        return text

    def _check(self, prompt: ChatPrompt) -> None:
        if prompt.chat_template is None and not self.is_there:
            raise UnsupportedError(
                "this model has no chat template: send a text prompt to completions, or start the "
                "worker with a chat template",
                field="prompt.messages",
            )
        if not prompt.messages:
            raise InvalidRequestError("messages is empty", field="prompt.messages")
        if prompt.add_generation_prompt and prompt.continue_final_message:
            raise InvalidRequestError(
                "continue_final_message excludes add_generation_prompt",
                field="prompt.continue_final_message",
            )
        for name in prompt.template_arguments.keys() & self._reserved_arguments:
            raise InvalidRequestError(
                f"{name!r} is not for a request to set", field="prompt.chat_template_arguments"
            )

    def _find_traits(self, source: str) -> TemplateTraits:
        def probe(
            messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
        ) -> str | None:
            try:
                text: str = self._tokenizer.apply_chat_template(
                    list(messages), tools=list(tools) or None, chat_template=source, tokenize=False
                )
            except _REFUSALS:
                return None
            return text

        return traits_of(source, probe)


def chat_format_of(tokenizer: Any, name: str) -> ChatFormat:
    """How a model writes: the format of this name, or what its tokenizer tells for AUTO."""
    if name != AUTO:
        return by_name(name)
    template = tokenizer.chat_template or ""
    if isinstance(template, dict):
        template = template.get("tool_use") or template.get("default") or ""
    return detect(template, tokenizer.get_added_vocab())


def _reserved_arguments(tokenizer: Any) -> frozenset[str]:
    """Names that rendering itself uses. Documents for retrieval are for the template."""
    parameters = inspect.signature(tokenizer.apply_chat_template).parameters
    return frozenset(parameters).union({"messages"}) - {"documents"}
