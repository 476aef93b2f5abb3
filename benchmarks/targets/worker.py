"""A worker, called as a gateway calls it: one stream per connection carries all requests."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from benchmarks.load import Answer, AnswerError, Ask
from benchmarks.targets import prompt
from services.mesh.channels import open_channel
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.worker.v1 import worker_pb2, worker_pb2_grpc


@dataclass(slots=True)
class _Pending:
    answer: Answer
    done: asyncio.Future[None]


class _WorkerConnection:
    """One Generate stream, and the answers that are under way on it."""

    def __init__(self, call: Any, model: str) -> None:
        self._call = call
        self._model = model
        self._keys = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        # grpc.aio takes one write of a call at a time.
        self._writing = asyncio.Lock()

    async def read(self) -> None:
        """Hands out what comes, until the stream ends."""
        try:
            async for response in self._call:
                now_s = time.perf_counter()
                for event in response.events:
                    self._take(event, now_s)
        except grpc.aio.AioRpcError as error:
            for pending in self._pending.values():
                pending.done.set_exception(AnswerError(f"{error.code().name}: {error.details()}"))
            self._pending.clear()

    def _take(self, event: worker_pb2.SequenceEvent, now_s: float) -> None:
        pending = self._pending[event.request_key]
        kind = event.WhichOneof("event")
        if kind == "chunk":
            pending.answer.arrivals_s.append(now_s)
        elif kind == "finished":
            pending.answer.completion_tokens = event.finished.usage.completion_tokens
            del self._pending[event.request_key]
            pending.done.set_result(None)
        elif kind == "failed":
            del self._pending[event.request_key]
            pending.done.set_exception(AnswerError(event.failed.status.message))

    async def ask(self, completion_tokens: int) -> Answer:
        """Asks once.

        Raises:
            AnswerError: the worker failed the request, or the stream ended.
        """
        key = next(self._keys)
        pending = _Pending(Answer(), asyncio.get_running_loop().create_future())
        self._pending[key] = pending
        start = worker_pb2.Start(
            request_id=f"bench-{key}",
            model=self._model,
            chat=prompt.CHAT,
            sampling=generation_pb2.SamplingParameters(max_tokens=completion_tokens, seed=key),
        )
        async with self._writing:
            await self._call.write(worker_pb2.GenerateRequest(request_key=key, start=start))
        await pending.done
        return pending.answer


@asynccontextmanager
async def connect(address: str, model: str, clients: int) -> AsyncIterator[list[Ask]]:
    """Functions that ask the worker at `address`, one for each client."""
    async with AsyncExitStack() as stack:
        readers = await stack.enter_async_context(asyncio.TaskGroup())
        connections = []
        for _ in range(prompt.connection_count(clients)):
            channel = await stack.enter_async_context(open_channel(address))
            call = worker_pb2_grpc.WorkerServiceStub(channel).Generate()
            connection = _WorkerConnection(call, model)
            reader = readers.create_task(connection.read())
            stack.callback(reader.cancel)
            connections.append(connection)
        yield [connections[index % len(connections)].ask for index in range(clients)]
