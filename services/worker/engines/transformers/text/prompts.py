"""Renders conversations with the checkpoint's chat template, and tokenizes prompts."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.mesh.errors import InvalidRequestError, UnsupportedError
from services.worker.chat_formats.base import ChatFormat
from services.worker.chat_formats.detection import detect
from services.worker.chat_formats.names import AUTO, by_name
from services.worker.engines.base import ChatPrompt, Prompt
from services.worker.engines.transformers.text.token_texts import TokenTexts


@dataclass(frozen=True)
class Tokens:
    """A prompt as the model takes it, and the text that it was."""

    ids: tuple[int, ...]
    text: str


class PromptReader:
    """Turns prompts of every form into token ids. For one thread at a time."""

    def __init__(
        self,
        tokenizer: Any,
        texts: TokenTexts,
        *,
        vocabulary_size: int,
        chat_format: ChatFormat,
    ) -> None:
        self._tokenizer = tokenizer
        self._texts = texts
        self._vocabulary_size = vocabulary_size
        self.chat_format = chat_format
        self._reserved_arguments = _reserved_arguments(tokenizer)
        self._takes_tools = self.can_chat and _uses_tools(tokenizer)

    @property
    def can_chat(self) -> bool:
        """Whether there is a chat template."""
        return bool(self._tokenizer.chat_template)

    def read(self, prompt: Prompt, *, add_special_tokens: bool = True) -> Tokens:
        """Token ids of a prompt. A conversation's template decides about special tokens itself.

        Raises:
            InvalidRequestError: the prompt is empty, or the chat template refuses it.
            UnsupportedError: the checkpoint has no chat template, or one without tools.
        """
        if isinstance(prompt, ChatPrompt):
            text = self.render(prompt)
            tokens = Tokens(self._tokenize(text, add_special_tokens=False), text)
        elif isinstance(prompt, str):
            ids = self._tokenize(prompt, add_special_tokens=add_special_tokens)
            tokens = Tokens(ids, prompt)
        else:
            self.require_known(prompt, "prompt.token_ids")
            tokens = Tokens(tuple(prompt), self._texts.decode(prompt))
        if not tokens.ids:
            raise InvalidRequestError("the prompt has no tokens: give at least one", field="prompt")
        return tokens

    def render(self, prompt: ChatPrompt) -> str:
        """What the chat template makes of a conversation.

        Raises:
            InvalidRequestError, UnsupportedError: as `read`.
        """
        return self._render(prompt) if prompt.rendered is None else prompt.rendered

    def plain_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, without special tokens around it."""
        return self._tokenize(text, add_special_tokens=False)

    def require_known(self, token_ids: tuple[int, ...], field: str) -> None:
        """Raises InvalidRequestError, naming `field`, where an id is not in the vocabulary."""
        for token_id in token_ids:
            if not 0 <= token_id < self._vocabulary_size:
                raise InvalidRequestError(
                    f"{field} holds {token_id}: token ids of this model are from 0 to "
                    f"{self._vocabulary_size - 1}",
                    field=field,
                )

    def _tokenize(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                "the prompt holds half of a surrogate pair, which is no character", field="prompt"
            ) from error
        encoded = self._tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)
        return tuple(encoded["input_ids"])

    def _render(self, prompt: ChatPrompt) -> str:
        self._check_chat(prompt)
        try:
            text: str = self._tokenizer.apply_chat_template(
                [_template_message(message, at) for at, message in enumerate(prompt.messages)],
                tools=[dict(tool) for tool in prompt.tools] or None,
                chat_template=prompt.chat_template,
                add_generation_prompt=prompt.add_generation_prompt,
                continue_final_message=prompt.continue_final_message,
                tokenize=False,
                **prompt.template_arguments,
            )
        except jinja2.TemplateSyntaxError as error:
            raise InvalidRequestError(
                f"the chat template is wrong: {error.message}", field="prompt.chat_template"
            ) from error
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise InvalidRequestError(
                f"the model's chat template refuses the conversation: {error}",
                field="prompt.messages",
            ) from error
        return text

    def _check_chat(self, prompt: ChatPrompt) -> None:
        if prompt.chat_template is None and not self.can_chat:
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
        if prompt.tools and prompt.chat_template is None and not self._takes_tools:
            raise UnsupportedError(
                "this model's chat template has no place for tools", field="prompt.tools"
            )


def chat_format_of(tokenizer: Any, name: str) -> ChatFormat:
    """How a model writes: the format of this name, or what its tokenizer tells for AUTO."""
    if name != AUTO:
        return by_name(name)
    return detect(_tool_template(tokenizer), tokenizer.get_added_vocab())


def _tool_template(tokenizer: Any) -> str:
    """The chat template that is used where there are tools."""
    template = tokenizer.chat_template or ""
    if isinstance(template, dict):
        template = template.get("tool_use") or template.get("default") or ""
    return str(template)


def _template_message(message: Mapping[str, Any], at: int) -> dict[str, Any]:
    """A message as templates expect it: text, and the arguments of tool calls as objects."""
    rendered = dict(message)
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        for part in content:
            if part.get("type") not in ("text", "refusal"):
                raise UnsupportedError(
                    f"this model takes text only, not a part of type {part.get('type')!r}",
                    field=f"prompt.messages[{at}].content",
                )
    if message.get("tool_calls"):
        rendered["tool_calls"] = [_template_tool_call(call) for call in message["tool_calls"]]
    return rendered


def _template_tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    try:
        function["arguments"] = json.loads(function["arguments"])
    except (TypeError, ValueError):
        # No JSON: the model once wrote it so, and reads it so.
        return dict(call)
    return {**call, "function": function}


def _reserved_arguments(tokenizer: Any) -> frozenset[str]:
    """Names that rendering itself uses. Documents for retrieval are for the template."""
    parameters = inspect.signature(tokenizer.apply_chat_template).parameters
    return frozenset(parameters).union({"messages"}) - {"documents"}


def _uses_tools(tokenizer: Any) -> bool:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        return "tool_use" in template
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        tree = environment.parse(template)
    except jinja2.TemplateSyntaxError:
        # Tags of transformers' own, such as {% generation %}: look at the words instead.
        return "tools" in template
    return "tools" in jinja2.meta.find_undeclared_variables(tree)
