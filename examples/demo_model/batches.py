"""Turns conversations into batches of token ids, masked to what the model learns to write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from corpus.mix import Conversation
from tokenizer import CONTEXT_TOKENS, TURN_END
from transformers import PreTrainedTokenizerFast

NOT_LEARNT = -100
_STEPS_PER_DOUBLING = 4
_LENGTHS = sorted(
    {
        base * (_STEPS_PER_DOUBLING + step) // _STEPS_PER_DOUBLING
        for base in (16, 32, 64, 128, 256, 512, 1024)
        for step in range(1, _STEPS_PER_DOUBLING + 1)
    }
)
"""The lengths that sequences are padded to: few, as CPU kernels are compiled for each shape."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Both of shape [sequences, tokens]. A target is the token to write next, or NOT_LEARNT."""

    token_ids: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Sequence:
    token_ids: list[int]
    targets: list[int]


class Batcher:
    """Groups conversations of like length, so that little of a batch is padding.

    A conversation always starts at position 0, as when it is served, and never sees another one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, batch_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens

    def batches(self, conversations: Iterable[Conversation]) -> Iterator[Batch]:
        waiting: defaultdict[int, list[_Sequence]] = defaultdict(list)
        for conversation in conversations:
            sequence = self._sequence(conversation)
            length = next(n for n in _LENGTHS if n >= len(sequence.token_ids))
            waiting[length].append(sequence)
            if (len(waiting[length]) + 1) * length > self._batch_tokens:
                yield self._padded(waiting.pop(length), length)

    def _padded(self, sequences: list[_Sequence], length: int) -> Batch:
        padding = self._tokenizer.pad_token_id
        return Batch(
            torch.tensor([_pad(s.token_ids, padding, length) for s in sequences]),
            torch.tensor([_pad(s.targets, NOT_LEARNT, length) for s in sequences]),
        )

    def _sequence(self, conversation: Conversation) -> _Sequence:
        pieces = _plain_pieces(conversation) if conversation.raw else _chat_pieces(conversation)
        encoded = self._tokenizer.backend_tokenizer.encode_batch([text for text, _ in pieces])
        token_ids: list[int] = []
        labels: list[int] = []
        for (_, is_learnt), encoding in zip(pieces, encoded, strict=True):
            token_ids += encoding.ids
            labels += encoding.ids if is_learnt else [NOT_LEARNT] * len(encoding.ids)
        targets = [*labels[1:], NOT_LEARNT]
        return _Sequence(token_ids[:CONTEXT_TOKENS], targets[:CONTEXT_TOKENS])


def _pad(values: list[int], value: int, length: int) -> list[int]:
    return values + [value] * (length - len(values))


def _plain_pieces(conversation: Conversation) -> list[tuple[str, bool]]:
    prompt, continuation = (message["content"] for message in conversation.messages)
    return [(prompt, False), (continuation + TURN_END, True)]


def _chat_pieces(conversation: Conversation) -> list[tuple[str, bool]]:
    """The chat template's text, cut so that a piece is either wholly learnt or not at all."""
    pieces: list[tuple[str, bool]] = []
    for message in conversation.messages:
        learnt = message["role"] == "assistant"
        pieces.append((f"<|im_start|>{message['role']}\n", False))
        pieces.append((message["content"] + TURN_END, learnt))
        pieces.append(("\n", False))
    return pieces
