"""Makes tokens of prompts of every form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.mesh.errors import InvalidRequestError
from services.worker.chat_formats.base import ChatFormat
from services.worker.engines.base import ChatPrompt, Prompt
from services.worker.engines.transformers.text.chat_template import ChatTemplate
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
        self._template = ChatTemplate(tokenizer, chat_format)

    @property
    def can_chat(self) -> bool:
        """Whether there is a chat template."""
        return self._template.is_there

    @property
    def chat_format(self) -> ChatFormat:
        """How the model writes reasoning and calls."""
        return self._template.chat_format

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
        return self._template.render(prompt) if prompt.rendered is None else prompt.rendered

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
