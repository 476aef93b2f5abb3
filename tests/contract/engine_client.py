"""Drives an engine in tests: submits requests, and collects what comes of each choice."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from services.mesh.errors import MeshError
from services.worker.engines.base import (
    Chunk,
    Engine,
    EngineRequest,
    Failed,
    Finished,
    Prompt,
    Started,
    StepOutput,
)

LIMIT_S = 60
"""How long a test waits for what must come."""


@dataclass
class Output:
    """What has come of one choice."""

    events: list[Started | Chunk | Finished | Failed] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    @property
    def chunks(self) -> list[Chunk]:
        return [event for event in self.events if isinstance(event, Chunk)]

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def token_ids(self) -> list[int]:
        return [token_id for chunk in self.chunks for token_id in chunk.token_ids]

    @property
    def is_over(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Finished | Failed)

    @property
    def finished(self) -> Finished:
        last = self.events[-1]
        assert isinstance(last, Finished), last
        return last

    @property
    def error(self) -> MeshError:
        last = self.events[-1]
        assert isinstance(last, Failed), last
        return last.error


class EngineClient:
    """The one consumer of an engine's steps."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.steps: list[StepOutput] = []
        self._outputs: dict[tuple[Hashable, int], Output] = {}
        self._keys = itertools.count()
        self._changed = asyncio.Condition()

    async def consume(self) -> None:
        async for step in self.engine.steps():
            async with self._changed:
                self.steps.append(step)
                for each in step.events:
                    output = self.output(each.key, each.choice_index)
                    assert not output.is_over, f"{each} came after the end"
                    output.events.append(each.event)
                    output.numbers.append(each.number)
                    output.steps.append(step.step)
                self._changed.notify_all()

    def output(self, key: Hashable, choice_index: int = 0) -> Output:
        return self._outputs.setdefault((key, choice_index), Output())

    def request(
        self, prompt: Prompt = "hello world", *, own: dict[str, Any] | None = None, **fields: Any
    ) -> EngineRequest:
        """A request with a new key. `own` are fields of EngineRequest, others those of sampling."""
        given: dict[str, Any] = {"key": next(self._keys), "request_id": "test", "model": self.model}
        given |= own or {}
        return EngineRequest(prompt=prompt, sampling_fields=fields, **given)

    @property
    def model(self) -> str:
        return self.engine.models[0].name

    async def submit(self, *arguments: Any, **fields: Any) -> Hashable:
        """Submits a request as `request` makes it. Returns its key."""
        request = self.request(*arguments, **fields)
        await self.engine.submit(request)
        return request.key

    async def run(self, *arguments: Any, **fields: Any) -> Output:
        """Runs a request of one choice to its end."""
        return await self.end_of(await self.submit(*arguments, **fields))

    async def run_choices(self, choices: int, *arguments: Any, **fields: Any) -> list[Output]:
        key = await self.submit(*arguments, choices=choices, **fields)
        return [await self.end_of(key, index) for index in range(choices)]

    async def end_of(self, key: Hashable, choice_index: int = 0) -> Output:
        output = self.output(key, choice_index)
        await self.until(lambda: output.is_over)
        return output

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until something holds that steps bring about."""
        async with asyncio.timeout(LIMIT_S), self._changed:
            await self._changed.wait_for(condition)

    async def until_idle(self) -> None:
        """Waits until the engine holds no request."""
        async with asyncio.timeout(LIMIT_S):
            while self.engine.load().running or self.engine.load().waiting:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[EngineClient]:
    """Starts an engine, and stops it in the end."""
    await engine.start()
    client = EngineClient(engine)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.consume())
        try:
            yield client
        finally:
            await engine.stop()
