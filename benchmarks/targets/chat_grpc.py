"""ChatService over gRPC: a gateway itself, or Envoy in front of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from benchmarks.load import Answer, AnswerError, Ask
from benchmarks.targets import prompt
from services.mesh.channels import open_channel
from tokenmesh.gateway.v1 import chat_pb2 as gateway_pb2
from tokenmesh.gateway.v1 import chat_pb2_grpc
from tokenmesh.mesh.v1 import generation_pb2


class _ChatClient:
    def __init__(self, channel: grpc.aio.Channel, model: str) -> None:
        self._stub = chat_pb2_grpc.ChatServiceStub(channel)
        self._request = gateway_pb2.ChatRequest(model=model, prompt=prompt.CHAT)

    async def ask(self, completion_tokens: int) -> Answer:
        """Asks once.

        Raises:
            AnswerError: the call failed.
        """
        answer = Answer()
        self._request.sampling.CopyFrom(
            generation_pb2.SamplingParameters(max_tokens=completion_tokens)
        )
        try:
            async for response in self._stub.Chat(self._request):
                kind = response.WhichOneof("event")
                if kind == "chunk":
                    answer.arrivals_s.append(time.perf_counter())
                    answer.chunks += 1
                elif kind == "completed":
                    answer.completion_tokens = response.completed.usage.completion_tokens
        except grpc.aio.AioRpcError as error:
            raise AnswerError(f"{error.code().name}: {error.details()}") from error
        return answer


@asynccontextmanager
async def connect(address: str, model: str, clients: int) -> AsyncIterator[list[Ask]]:
    """Functions that ask what is at `address`, one for each client."""
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(open_channel(address))
            for _ in range(prompt.connection_count(clients))
        ]
        yield [_ChatClient(channels[index % len(channels)], model).ask for index in range(clients)]
