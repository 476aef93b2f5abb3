"""Chats with a mesh over gRPC: streams, leaves early, interrupts, and reads errors.

./build.sh && PYTHONPATH=build python3 chat.py [HOST:PORT] [MODEL]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from queue import SimpleQueue

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tokenmesh.gateway.v1 import chat_pb2, chat_pb2_grpc
from tokenmesh.mesh.v1 import chat_pb2 as vocabulary
from tokenmesh.mesh.v1 import generation_pb2

LIMIT_S = 60.0
CHUNKS_BEFORE_LEAVING = 5
SHORT = generation_pb2.SamplingParameters(max_tokens=40)


class Client:
    """What one program asks of one model."""

    def __init__(self, channel: grpc.Channel, model: str) -> None:
        self._chat = chat_pb2_grpc.ChatServiceStub(channel)
        self._model = model
        key = os.environ.get("TOKENMESH_API_KEY")
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()

    def ask(
        self,
        question: str,
        sampling: generation_pb2.SamplingParameters | None = None,
        model: str | None = None,
    ) -> None:
        """Prints an answer as it comes."""
        for response in self._call(question, sampling, model):
            if response.HasField("chunk"):
                show(response.chunk.text)
            elif response.HasField("completed"):
                print(f"\n({response.completed.usage.completion_tokens} tokens)")

    def leave_early(self, question: str) -> None:
        """Cancels the call after a few chunks; the mesh stops computing the answer."""
        call = self._call(question)
        chunks = 0
        for response in call:
            if response.HasField("chunk"):
                show(response.chunk.text)
                chunks += 1
                if chunks == CHUNKS_BEFORE_LEAVING:
                    call.cancel()
                    break
        print(f"\n(left after {chunks} chunks)")

    def converse(self, first: str, second: str) -> None:
        """Holds a conversation: interrupts the first answer, then takes another turn."""
        frames: SimpleQueue[chat_pb2.ConverseRequest | None] = SimpleQueue()
        opening = chat_pb2.ConverseRequest.Open(model=self._model)
        frames.put(chat_pb2.ConverseRequest(open=opening))
        frames.put(turn(1, first))
        call = self._chat.Converse(iter(frames.get, None), metadata=self._metadata)
        chunks = 0
        for response in call:
            event = response.WhichOneof("event")
            if event == "chunk":
                show(response.chunk.text)
                chunks += 1
                if response.turn_number == 1 and chunks == CHUNKS_BEFORE_LEAVING:
                    interrupt = chat_pb2.ConverseRequest.Interrupt()
                    frames.put(chat_pb2.ConverseRequest(interrupt=interrupt))
            elif event == "failed":
                print(f"\n{response.failed.message}\n  reason: {response.failed.reason}")
                frames.put(None)
            elif event in {"interrupted", "completed"}:
                usage = getattr(response, event).usage
                print(f"\n({event}, {usage.completion_tokens} tokens)")
                frames.put(turn(2, second, SHORT) if response.turn_number == 1 else None)

    def _call(
        self,
        question: str,
        sampling: generation_pb2.SamplingParameters | None = None,
        model: str | None = None,
    ) -> grpc.CallIterator[chat_pb2.ChatResponse]:
        request = chat_pb2.ChatRequest(
            model=model or self._model,
            prompt=vocabulary.ChatPrompt(messages=[user_message(question)]),
            sampling=sampling,
        )
        return self._chat.Chat(request, timeout=LIMIT_S, metadata=self._metadata)


def user_message(text: str) -> vocabulary.Message:
    return vocabulary.Message(
        role=vocabulary.ROLE_USER, content=[vocabulary.ContentPart(text=text)]
    )


def turn(
    number: int, question: str, sampling: generation_pb2.SamplingParameters | None = None
) -> chat_pb2.ConverseRequest:
    return chat_pb2.ConverseRequest(
        turn=chat_pb2.ConverseRequest.Turn(
            number=number, messages=[user_message(question)], sampling=sampling
        )
    )


def show(text: str) -> None:
    print(text, end="", flush=True)


def explain(error: grpc.RpcError) -> None:
    """Prints what failed, why by its stable name, which field is at fault, when to try again."""
    print(f"{error.code().name}: {error.details()}")
    status = rpc_status.from_call(error)
    for detail in details(status.details if status else ()):
        if isinstance(detail, error_details_pb2.ErrorInfo):
            print(f"  reason: {detail.reason}")
        elif isinstance(detail, error_details_pb2.BadRequest):
            for violation in detail.field_violations:
                print(f"  field: {violation.field}")
        elif isinstance(detail, error_details_pb2.RetryInfo):
            print(f"  retry after: {detail.retry_delay.ToMilliseconds()} ms")


def details(packed: Iterable) -> Iterable:
    kinds = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
    )
    for each in packed:
        for kind in kinds:
            if each.Is(kind.DESCRIPTOR):
                yield kind.FromString(each.value)


def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8000"
    model = sys.argv[2] if len(sys.argv) > 2 else "tokenmesh-demo"
    with grpc.insecure_channel(address) as channel:
        client = Client(channel, model)
        try:
            print("> What is TokenMesh?")
            client.ask("What is TokenMesh?", SHORT)
            print("> Tell me a story.")
            client.leave_early("Tell me a story.")
            print("> Tell me a story. Then: What is the capital of France?")
            client.converse("Tell me a story.", "What is the capital of France?")
        except grpc.RpcError as error:
            explain(error)
            raise SystemExit(1) from None
        print("> a temperature of 9")
        try:
            client.ask("Hello", generation_pb2.SamplingParameters(temperature=9.0))
        except grpc.RpcError as error:
            explain(error)
        print("> a model that nobody serves")
        try:
            client.ask("Hello", model="nobody")
        except grpc.RpcError as error:
            explain(error)


if __name__ == "__main__":
    main()
