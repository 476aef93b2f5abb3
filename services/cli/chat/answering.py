"""One answer from the mesh: the gRPC call behind `tokenmesh chat`, and how fast it was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import grpc

from services.cli.chat.conversation import Said
from tokenmesh.gateway.v1 import chat_pb2, chat_pb2_grpc, model_pb2, model_pb2_grpc
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.mesh.v1 import model_pb2 as mesh_model_pb2

CALL_LIMIT_S = 30.0
GENERATING = frozenset({mesh_model_pb2.CAPABILITY_CHAT, mesh_model_pb2.CAPABILITY_COMPLETE})

ROLES = {
    "system": mesh_chat_pb2.ROLE_SYSTEM,
    "user": mesh_chat_pb2.ROLE_USER,
    "assistant": mesh_chat_pb2.ROLE_ASSISTANT,
}


def model_names(channel: grpc.Channel) -> list[str]:
    """The models that generate text, and can be asked just now.

    Raises:
        grpc.RpcError: the mesh cannot be reached.
    """
    stub = model_pb2_grpc.ModelServiceStub(channel)
    listed = stub.ListModels(model_pb2.ListModelsRequest(), timeout=CALL_LIMIT_S)
    return [
        served.model.name
        for served in listed.models
        if not GENERATING.isdisjoint(served.model.capabilities)
    ]


class ChatCall(Protocol):
    """A call of ChatService.Chat."""

    def __iter__(self) -> Iterator[chat_pb2.ChatResponse]:
        """The responses, as they come."""
        ...

    def cancel(self) -> bool:
        """Gives it up: the mesh computes no more of it."""
        ...


@dataclass
class Answer:
    """An answer as it comes: iterate over it for its pieces, then read what it was.

    Attributes:
        text: all of it so far.
        cut_short: whether max_tokens or the context ended it.
        completion_tokens: known once it is whole.
        first_token_s: seconds from the question to the first piece.
        tokens_per_s: of the worker, after the first token; None for answers too short to tell.
    """

    call: ChatCall
    text: str = ""
    cut_short: bool = False
    completion_tokens: int = 0
    first_token_s: float | None = None
    tokens_per_s: float | None = None
    _asked_at_s: float = field(default_factory=time.monotonic)

    def __iter__(self) -> Iterator[str]:
        """The pieces of the text.

        Raises:
            grpc.RpcError: the call failed.
        """
        for response in self.call:
            event = response.WhichOneof("event")
            if event == "chunk":
                if self.first_token_s is None:
                    self.first_token_s = time.monotonic() - self._asked_at_s
                self.text += response.chunk.text
                yield response.chunk.text
            elif event == "finished":
                self.cut_short = response.finished.reason == generation_pb2.FINISH_REASON_LENGTH
            elif event == "completed":
                self._complete(response.completed)

    def _complete(self, completed: chat_pb2.GenerationCompleted) -> None:
        self.completion_tokens = completed.usage.completion_tokens
        # The worker's own time: a terminal that draws slowly gets its chunks merged.
        decode_s = completed.timing.decode.ToNanoseconds() / 1e9
        if self.completion_tokens > 1 and decode_s > 0:
            self.tokens_per_s = (self.completion_tokens - 1) / decode_s

    def interrupt(self) -> None:
        """Has the mesh stop computing the rest."""
        self.call.cancel()


def ask(
    channel: grpc.Channel,
    model: str,
    messages: list[Said],
    sampling: generation_pb2.SamplingParameters,
) -> Answer:
    """Asks for an answer to the messages."""
    prompt = mesh_chat_pb2.ChatPrompt(
        messages=[
            mesh_chat_pb2.Message(
                role=ROLES[each.role], content=[mesh_chat_pb2.ContentPart(text=each.text)]
            )
            for each in messages
        ]
    )
    request = chat_pb2.ChatRequest(model=model, prompt=prompt, sampling=sampling)
    return Answer(chat_pb2_grpc.ChatServiceStub(channel).Chat(request))
