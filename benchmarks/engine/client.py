"""Asks our own engine through its contract, in this process, as a worker does."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.load import Answer, AnswerError
from services.worker import engines
from services.worker.engines.base import Chunk, Engine, EngineRequest, Failed, Finished, Started
from services.worker.engines.settings import EngineSettings


@dataclass(slots=True)
class EngineAnswer(Answer):
    """An answer, and what the engine tells of it besides."""

    asked_s: float = 0.0
    cached_tokens: int = 0

    @property
    def first_token_s(self) -> float:
        """From asking to the first token, in seconds."""
        return self.arrivals_s[0] - self.asked_s


@dataclass(slots=True)
class _Pending:
    answer: EngineAnswer
    done: asyncio.Future[EngineAnswer] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class EngineClient:
    """The one consumer of an engine's steps."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._keys = itertools.count()
        self._pending: dict[Hashable, _Pending] = {}

    async def read(self) -> None:
        """Hands out what the steps bring, until the engine stops."""
        async for step in self.engine.steps():
            now_s = time.perf_counter()
            for each in step.events:
                self._take(each.key, each.event, now_s)

    def _take(
        self, key: Hashable, event: Started | Chunk | Finished | Failed, now_s: float
    ) -> None:
        pending = self._pending[key]
        match event:
            case Started(_, cached_tokens):
                pending.answer.cached_tokens = cached_tokens
            case Chunk():
                pending.answer.arrivals_s.append(now_s)
            case Finished():
                pending.answer.completion_tokens = event.completion_tokens
                self._pending.pop(key).done.set_result(pending.answer)
            case Failed(error):
                self._pending.pop(key).done.set_exception(AnswerError(str(error)))

    async def ask(
        self, prompt_ids: Sequence[int], completion_tokens: int, **fields: Any
    ) -> EngineAnswer:
        """Asks once, greedily where the fields say nothing else, past ends of text.

        Raises:
            AnswerError: the engine failed the request.
        """
        key = next(self._keys)
        pending = self._pending[key] = _Pending(EngineAnswer(asked_s=time.perf_counter()))
        sampling: Mapping[str, Any] = {
            "temperature": 0.0,
            "max_tokens": completion_tokens,
            "ignore_eos": True,
            "seed": key,
            **fields,
        }
        model = self.engine.models[0].name
        await self.engine.submit(
            EngineRequest(key, f"bench-{key}", model, tuple(prompt_ids), sampling)
        )
        return await pending.done


@asynccontextmanager
async def running(settings: EngineSettings) -> AsyncIterator[EngineClient]:
    """The default engine, loaded; it ends with the block."""
    engine = engines.create("transformers", settings)
    await engine.start()
    client = EngineClient(engine)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.read())
        try:
            yield client
        finally:
            await engine.stop()
