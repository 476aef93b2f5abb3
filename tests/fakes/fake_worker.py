"""A worker without an engine: each request runs a script of the test.

It speaks the whole protocol over real gRPC: it attaches to real controllers, and numbers the events
that its scripts send. A script may break the rules by sending raw events.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc

from services.mesh import status
from services.mesh.channels import open_channel
from services.mesh.errors import MeshError
from services.mesh.release import PROTOCOL_VERSION
from services.mesh.server import MeshServer
from tokenmesh.controller.v1 import registry_pb2, registry_pb2_grpc
from tokenmesh.mesh.v1 import generation_pb2, model_pb2
from tokenmesh.worker.v1 import worker_pb2, worker_pb2_grpc

SERVICE_NAME = "tokenmesh.worker.v1.WorkerService"
RETRY_S = 0.05
MODEL = "fake/model"


class FakeRequest:
    """A request as its script sees it."""

    def __init__(
        self, key: int, start: worker_pb2.Start, outgoing: asyncio.Queue[Any], worker_id: str
    ) -> None:
        self.key = key
        self.start = start
        self.worker_id = worker_id
        self.credit_tokens = start.credit_tokens
        self.credited = asyncio.Event()
        self._outgoing = outgoing
        self._numbers = {each.choice_index: each.next_number for each in start.output_so_far}

    async def started(self, choice: int = 0, *, prompt_tokens: int = 3) -> None:
        await self._send(choice, started=worker_pb2.Started(prompt_tokens=prompt_tokens))

    async def chunk(self, text: str, token_ids: Iterable[int] = (1,), *, choice: int = 0) -> None:
        await self._send(choice, chunk=worker_pb2.Chunk(text=text, token_ids=token_ids))

    async def output(self, *, choice: int = 0, **fields: Any) -> None:
        """A chunk with any of its fields."""
        await self._send(choice, chunk=worker_pb2.Chunk(**fields))

    async def finish(
        self,
        choice: int = 0,
        *,
        completion_tokens: int = 1,
        reason: generation_pb2.FinishReason.ValueType = generation_pb2.FINISH_REASON_STOP,
    ) -> None:
        usage = generation_pb2.Usage(prompt_tokens=3, completion_tokens=completion_tokens)
        finished = worker_pb2.Finished(reason=reason, usage=usage)
        finished.timing.decode.FromMilliseconds(10 * (choice + 1))
        await self._send(choice, finished=finished)

    async def fail(self, error: MeshError, choice: int = 0) -> None:
        await self._send(choice, failed=worker_pb2.Failed(status=status.to_status(error)))

    async def send_raw(self, event: worker_pb2.SequenceEvent) -> None:
        event.request_key = self.key
        await self._outgoing.put(worker_pb2.GenerateResponse(events=[event]))

    async def _send(self, choice: int, **event: Any) -> None:
        number = self._numbers.get(choice, 0)
        self._numbers[choice] = number + 1
        await self.send_raw(worker_pb2.SequenceEvent(choice_index=choice, number=number, **event))


Script = Callable[[FakeRequest], Awaitable[None]]


async def say_hello(request: FakeRequest) -> None:
    """Two tokens, and the end; or what is left of them."""
    said = [each.delivered_bytes for each in request.start.output_so_far]
    await request.started()
    if not said:
        await request.chunk("Hel", [1])
    if said != [5]:
        await request.chunk("lo", [2])
    await request.finish(completion_tokens=2)


async def hang(request: FakeRequest) -> None:
    """Nothing, ever."""
    await asyncio.Event().wait()


async def start_and_hang(request: FakeRequest) -> None:
    """One token, and then nothing."""
    await request.started()
    await request.chunk("Hel", [1])
    await asyncio.Event().wait()


EncodeScript = Callable[[worker_pb2.EmbedRequest | worker_pb2.ScoreRequest], Awaitable[None]]
"""What happens before an Embed or a Score is answered."""


async def at_once(request: worker_pb2.EmbedRequest | worker_pb2.ScoreRequest) -> None:
    """Nothing."""


def failing(error: MeshError) -> Script:
    """A script that fails the request."""

    async def fail(request: FakeRequest) -> None:
        await request.fail(error)

    return fail


class FakeWorker(worker_pb2_grpc.WorkerServiceServicer):
    """One worker. Use as an async context manager."""

    def __init__(
        self,
        controllers: Sequence[str],
        script: Script = say_hello,
        *,
        worker_id: str = "worker",
        models: Sequence[model_pb2.Model] = (),
        encode: EncodeScript = at_once,
        speed: float = 1.0,
        port: int = 0,
    ) -> None:
        self.script = script
        self.worker_id = worker_id
        self.models = list(models) or [fake_model()]
        self.state = registry_pb2.WORKER_STATE_SERVING
        self.starts: list[worker_pb2.Start] = []
        self.aborted: list[str] = []
        self.running: dict[int, FakeRequest] = {}
        self.streams_opened = 0
        self.encode = encode
        self.encode_calls: list[worker_pb2.EmbedRequest | worker_pb2.ScoreRequest] = []
        self._controllers = controllers
        self._speed = speed
        self._incarnation = uuid.uuid4().hex
        self._server = MeshServer("127.0.0.1", port)
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self, self._server.grpc)
        self._attachments: list[asyncio.Task[None]] = []
        self._state_changed = asyncio.Event()

    @property
    def address(self) -> str:
        return self._server.address

    @property
    def port(self) -> int:
        return self._server.port

    async def __aenter__(self) -> FakeWorker:
        await self._server.start([SERVICE_NAME])
        self._attachments = [
            asyncio.create_task(self._attach(controller)) for controller in self._controllers
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()

    async def die(self) -> None:
        """Stops at once, without a word to anyone."""
        await self.detach()
        await self._server.stop(0)

    async def break_streams(self) -> None:
        """Stops the server only: the controllers still hold the lease."""
        await self._server.stop(0)

    async def detach(self) -> None:
        """Sends no more heartbeats."""
        for attachment in self._attachments:
            attachment.cancel()
        await asyncio.gather(*self._attachments, return_exceptions=True)
        self._attachments = []

    def drain(self) -> None:
        """Tells the controllers that it takes nothing new."""
        self.state = registry_pb2.WORKER_STATE_DRAINING
        self._state_changed.set()

    async def Generate(
        self, request_iterator: AsyncIterator[worker_pb2.GenerateRequest], context: Any
    ) -> AsyncIterator[worker_pb2.GenerateResponse]:
        self.streams_opened += 1
        outgoing: asyncio.Queue[worker_pb2.GenerateResponse] = asyncio.Queue(maxsize=1000)
        reading = asyncio.create_task(self._read(request_iterator, outgoing))
        try:
            while True:
                yield await outgoing.get()
        finally:
            reading.cancel()

    async def Tokenize(
        self, request: worker_pb2.TokenizeRequest, context: Any
    ) -> worker_pb2.TokenizeResponse:
        return worker_pb2.TokenizeResponse(
            token_ids=list(request.text.encode()),
            texts=list(request.text) if request.with_texts else [],
            context_length_tokens=64,
        )

    async def Detokenize(
        self, request: worker_pb2.DetokenizeRequest, context: Any
    ) -> worker_pb2.DetokenizeResponse:
        return worker_pb2.DetokenizeResponse(text=bytes(request.token_ids).decode())

    async def CountTokens(
        self, request: worker_pb2.CountTokensRequest, context: Any
    ) -> worker_pb2.CountTokensResponse:
        said = [part.text for message in request.chat.messages for part in message.content]
        return worker_pb2.CountTokensResponse(
            prompt_tokens=len("".join((request.text, *said))), context_length_tokens=64
        )

    async def DescribeModels(
        self, request: worker_pb2.DescribeModelsRequest, context: Any
    ) -> worker_pb2.DescribeModelsResponse:
        return worker_pb2.DescribeModelsResponse(
            worker_id=self.worker_id, incarnation=self._incarnation, models=self.models
        )

    async def Embed(
        self, request: worker_pb2.EmbedRequest, context: Any
    ) -> worker_pb2.EmbedResponse:
        self.encode_calls.append(request)
        await self.encode(request)
        response = worker_pb2.EmbedResponse()
        for each in request.inputs:
            # Its length tells a text; a list of token ids stands for itself.
            first = len(each.text) if each.HasField("text") else sum(each.token_ids.values)
            response.embeddings.add(values=[float(first), 0.5])
        response.usage.prompt_tokens = len(request.inputs)
        return response

    async def Score(
        self, request: worker_pb2.ScoreRequest, context: Any
    ) -> worker_pb2.ScoreResponse:
        self.encode_calls.append(request)
        await self.encode(request)
        queries = list(request.queries) * (
            1 if len(request.queries) > 1 else len(request.documents)
        )
        scores = [
            float(len(query) - len(document))
            for query, document in zip(queries, request.documents, strict=True)
        ]
        response = worker_pb2.ScoreResponse(scores=scores)
        response.usage.prompt_tokens = len(scores)
        return response

    async def _read(
        self, frames: AsyncIterator[worker_pb2.GenerateRequest], outgoing: asyncio.Queue[Any]
    ) -> None:
        tasks: dict[int, asyncio.Task[None]] = {}
        mine: dict[int, FakeRequest] = {}
        try:
            async for frame in frames:
                key = frame.request_key
                if frame.HasField("start"):
                    request = FakeRequest(key, frame.start, outgoing, self.worker_id)
                    self.starts.append(frame.start)
                    self.running[id(request)] = mine[key] = request
                    tasks[key] = asyncio.create_task(self._run(request))
                elif frame.HasField("credit"):
                    mine[key].credit_tokens += frame.credit.tokens
                    mine[key].credited.set()
                elif frame.HasField("abort") and key in tasks:
                    self.aborted.append(mine[key].start.request_id)
                    tasks[key].cancel()
        finally:
            for task in tasks.values():
                task.cancel()

    async def _run(self, request: FakeRequest) -> None:
        try:
            await self.script(request)
        finally:
            del self.running[id(request)]

    async def _attach(self, controller: str) -> None:
        async with open_channel(controller) as channel:
            stub: Any = registry_pb2_grpc.RegistryServiceStub(channel)
            while True:
                try:
                    await self._hold_lease(stub.Attach())
                except grpc.RpcError:
                    await asyncio.sleep(RETRY_S)

    async def _hold_lease(self, call: Any) -> None:
        hello = registry_pb2.Hello(
            protocol_version=PROTOCOL_VERSION,
            worker_id=self.worker_id,
            incarnation=self._incarnation,
            address=self.address,
            models=self.models,
            capacity=registry_pb2.Capacity(max_running=8, max_waiting=8, speed=self._speed),
            state=self.state,
        )
        await call.write(registry_pb2.AttachRequest(hello=hello))
        granted = await call.read()
        if granted is grpc.aio.EOF:
            return
        interval_s = granted.lease_granted.heartbeat_interval.ToMilliseconds() / 1000
        number = 0
        while True:
            number += 1
            load = registry_pb2.Load(running=len(self.running))
            heartbeat = registry_pb2.Heartbeat(number=number, load=load, state=self.state)
            await call.write(
                registry_pb2.AttachRequest(lease_id=granted.lease_id, heartbeat=heartbeat)
            )
            if await call.read() is grpc.aio.EOF:
                return
            try:
                async with asyncio.timeout(interval_s):
                    await self._state_changed.wait()
                self._state_changed.clear()
            except TimeoutError:
                continue


def fake_model(name: str = MODEL, **fields: Any) -> model_pb2.Model:
    """A text model that chats and completes."""
    fields.setdefault("capabilities", [model_pb2.CAPABILITY_CHAT, model_pb2.CAPABILITY_COMPLETE])
    return model_pb2.Model(name=name, context_length_tokens=64, **fields)


def embedding_model(name: str = MODEL, **fields: Any) -> model_pb2.Model:
    """A model that embeds and scores."""
    fields.setdefault("capabilities", [model_pb2.CAPABILITY_EMBED, model_pb2.CAPABILITY_SCORE])
    return fake_model(name, embedding_dimensions=2, **fields)
