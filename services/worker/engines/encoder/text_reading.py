"""Makes rows of token ids of texts, of pairs of texts, and of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.mesh.errors import ContextLengthError, InvalidRequestError
from services.worker.engines.encoder.job import Row
from services.worker.engines.encoding import EmbedInput, Truncation

CHARACTERS_PER_TOKEN = 64
"""Language has fewer. More of a text than this makes of all its tokens is not tokenized, so that
one caller's megabytes do not hold up the others' lines."""


@dataclass(frozen=True)
class Cut:
    """How long a text may be, and what happens to a longer one."""

    tokens: int
    cuts: bool
    """Whether a longer one is cut, or refused."""


class TextReader:
    """Tokenizes. For one thread at a time: the tokenizer keeps how it cuts from call to call.

    Args:
        tokenizer: of transformers.
        max_tokens: the longest text, special tokens included.
        vocabulary_size: token ids are below it.
        prompt: put before each text to embed.
        lowers_case: whether texts are read in lower case.
        truncates: whether longer texts are cut where a call does not say.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_tokens: int,
        vocabulary_size: int,
        prompt: str = "",
        lowers_case: bool = False,
        truncates: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._vocabulary_size = vocabulary_size
        self._prompt = prompt
        self._lowers_case = lowers_case
        self._truncates = truncates

    def cut(self, truncation: Truncation, *, of_pairs: bool = False) -> Cut:
        """What a call's wish comes to.

        Raises:
            InvalidRequestError: it wants to keep more than the model reads, or nothing at all.
        """
        tokens = truncation.tokens
        if tokens is None:
            cuts = self._truncates if truncation.truncate is None else truncation.truncate
            return Cut(self._max_tokens, cuts)
        least = int(self._tokenizer.num_special_tokens_to_add(pair=of_pairs)) + 1
        if not least <= tokens <= self._max_tokens:
            raise InvalidRequestError(
                f"truncate_tokens is {tokens}: it must be from {least}, special tokens included, "
                f"to {self._max_tokens}, which this model reads",
                field="truncate_tokens",
            )
        return Cut(tokens, cuts=True)

    def read_texts(
        self, inputs: Sequence[EmbedInput], cut: Cut, *, field: str = "inputs", first: int = 0
    ) -> list[Row]:
        """The rows of some of a call's texts to embed, of which the first has the number `first`.

        Raises:
            InvalidRequestError, ContextLengthError: an input cannot be; `field` names it.
        """
        fields = [f"{field}[{first + at}]" for at in range(len(inputs))]
        texts = {
            at: self._prompt + self._bounded(each, cut, fields[at])
            for at, each in enumerate(inputs)
            if isinstance(each, str)
        }
        rows = dict(zip(texts, self._tokenize(list(texts.values())), strict=True))
        for at, each in enumerate(inputs):
            if not isinstance(each, str):
                rows[at] = self._of_ids(each, cut, fields[at])
            elif len(rows[at]) > cut.tokens:
                self._require_cut(rows[at], cut, fields[at])
                rows[at] = self._tokenize_cut(cut, texts[at])
            elif not len(rows[at]):
                raise InvalidRequestError(f"{fields[at]} has no tokens", field=fields[at])
        return [rows[at] for at in range(len(inputs))]

    def read_pairs(
        self, queries: Sequence[str], documents: Sequence[str], cut: Cut, *, first: int = 0
    ) -> list[Row]:
        """The rows of some of a call's pairs, of which the first has the number `first`.

        Raises:
            ContextLengthError: a pair is too long; `field` names its document.
        """
        fields = [f"documents[{first + at}]" for at in range(len(documents))]
        left = [self._bounded(each, cut, at) for each, at in zip(queries, fields, strict=True)]
        right = [self._bounded(each, cut, at) for each, at in zip(documents, fields, strict=True)]
        rows = self._tokenize(left, right)
        for at, row in enumerate(rows):
            if len(row) > cut.tokens:
                self._require_cut(row, cut, fields[at], what="with its query")
                rows[at] = self._tokenize_cut(cut, left[at], right[at])
        return rows

    def token_ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of any text, however long."""
        read = self._tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)
        return list(read["input_ids"])

    def text_of(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Text of token ids."""
        return str(
            self._tokenizer.decode(
                list(token_ids),
                skip_special_tokens=skip_special_tokens,
                clean_up_tokenization_spaces=False,
            )
        )

    def require_known(self, token_ids: Sequence[int], field: str) -> None:
        """Raises InvalidRequestError, naming `field`, where an id is not in the vocabulary."""
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < self._vocabulary_size:
            raise InvalidRequestError(
                f"{field} holds a token id that is not from 0 to {self._vocabulary_size - 1}, as "
                "those of this model are",
                field=field,
            )

    def _bounded(self, text: str, cut: Cut, field: str) -> str:
        limit = cut.tokens * CHARACTERS_PER_TOKEN
        if len(text) > limit:
            if not cut.cuts:
                raise ContextLengthError(
                    f"{field} has {len(text)} characters, and this model reads {cut.tokens} tokens "
                    "at most: shorten it, or have it cut",
                    field=field,
                )
            text = text[:limit]
        return text.lower() if self._lowers_case else text

    def _of_ids(self, token_ids: tuple[int, ...], cut: Cut, field: str) -> Row:
        if not token_ids:
            raise InvalidRequestError(f"{field} holds no token ids", field=field)
        self.require_known(token_ids, field)
        row = Row(token_ids)
        if len(row) <= cut.tokens:
            return row
        self._require_cut(row, cut, field)
        return Row(token_ids[: cut.tokens])

    @staticmethod
    def _require_cut(row: Row, cut: Cut, field: str, *, what: str = "") -> None:
        if not cut.cuts:
            has = f"has {len(row)} tokens {what}".rstrip()
            raise ContextLengthError(
                f"{field} {has}, and this model reads {cut.tokens} at most: shorten it, or have "
                "it cut",
                field=field,
            )

    def _tokenize(self, texts: list[str], pairs: list[str] | None = None) -> list[Row]:
        if not texts:
            return []
        read = self._tokenizer(texts, pairs, return_attention_mask=False, verbose=False)
        if pairs is None or "token_type_ids" not in read:
            return [Row(ids) for ids in read["input_ids"]]
        return [
            Row(ids, types)
            for ids, types in zip(read["input_ids"], read["token_type_ids"], strict=True)
        ]

    def _tokenize_cut(self, cut: Cut, text: str, pair: str | None = None) -> Row:
        """A row cut to length; of a pair, the longer text loses first."""
        read = self._tokenizer(
            text,
            pair,
            truncation="longest_first",
            max_length=cut.tokens,
            return_attention_mask=False,
            verbose=False,
        )
        return Row(read["input_ids"], read.get("token_type_ids") if pair is not None else None)
