"""The ways to embed that are compared. Each embeds all texts, and gives its vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

from services.worker.engines.encoder import EncoderEngine
from services.worker.engines.encoding import EmbedCall

BATCH_TEXTS = 32
"""Texts of one batch of transformers by itself: what sentence-transformers takes."""

CALLERS = 32

Vectors = Sequence[Sequence[float]]
Way = Callable[[Sequence[str]], Awaitable[Vectors]]


class Plain:
    """transformers' model and tokenizer, the mean of the tokens' vectors."""

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    async def one_by_one(self, texts: Sequence[str]) -> Vectors:
        """A forward pass for each text."""
        return [self._embed([text])[0] for text in texts]

    async def in_batches(self, texts: Sequence[str]) -> Vectors:
        """Batches in the order of the texts."""
        vectors: list[Sequence[float]] = []
        for first in range(0, len(texts), BATCH_TEXTS):
            vectors += self._embed(texts[first : first + BATCH_TEXTS])
        return vectors

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> list[list[float]]:
        read = self._tokenizer(list(texts), padding=True, return_tensors="pt")
        states = self._model(**read).last_hidden_state
        mask = read["attention_mask"].unsqueeze(-1)
        pooled = (states * mask).sum(1) / mask.sum(1)
        vectors: list[list[float]] = torch.nn.functional.normalize(pooled, dim=1).tolist()
        return vectors


class Served:
    """The engine, as a worker asks it."""

    def __init__(self, engine: EncoderEngine) -> None:
        self._engine = engine

    async def one_by_one(self, texts: Sequence[str]) -> Vectors:
        """One caller, who sends one text after another."""
        return [(await self._embed([text]))[0] for text in texts]

    async def of_many_callers(self, texts: Sequence[str]) -> Vectors:
        """Callers who send one text after another each."""
        vectors: list[Sequence[float]] = [()] * len(texts)
        left = iter(enumerate(texts))

        async def caller() -> None:
            for at, text in left:
                vectors[at] = (await self._embed([text]))[0]

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return vectors

    async def in_one_call(self, texts: Sequence[str]) -> Vectors:
        """One call with all texts."""
        return await self._embed(texts)

    async def _embed(self, texts: Sequence[str]) -> Vectors:
        model = self._engine.models[0].name
        return (await self._engine.embed(EmbedCall("benchmark", model, texts))).vectors
