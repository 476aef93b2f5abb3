"""A conversation that the server keeps: what was said, and what is being said."""

from __future__ import annotations

from collections.abc import Iterable

from services.gateway import chat_prompts
from services.mesh.errors import InvalidRequestError
from tokenmesh.gateway.v1 import chat_pb2
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2

MAX_CONVERSATION_BYTES = 16 * 1024 * 1024


class Conversation:
    """The messages of one Converse stream.

    Raises:
        InvalidRequestError: the opening frame is not valid.
    """

    def __init__(self, opening: chat_pb2.ConverseRequest.Open) -> None:
        chat_prompts.check(opening.prompt, "open.prompt", may_be_empty=True)
        self._opening = opening
        self._prompt = opening.prompt

    def request(self, turn: chat_pb2.ConverseRequest.Turn) -> chat_pb2.ChatRequest:
        """The request that answers a turn. The conversation itself is left as it is.

        Raises:
            InvalidRequestError: the turn asks for several choices, or the conversation is too long.
        """
        opening = self._opening
        sampling = turn.sampling if turn.HasField("sampling") else opening.sampling
        if sampling.choices > 1 or sampling.best_of > 1:
            raise InvalidRequestError(
                "sampling.choices must be 1 in a conversation that is held",
                field="sampling.choices",
            )
        request = chat_pb2.ChatRequest(
            model=opening.model,
            prompt=self._prompt,
            sampling=sampling,
            priority=opening.priority,
            user=opening.user,
        )
        request.prompt.messages.extend(turn.messages)
        if request.ByteSize() > MAX_CONVERSATION_BYTES:
            raise InvalidRequestError(
                f"the conversation may have {MAX_CONVERSATION_BYTES} bytes at most",
                field="turn.messages",
            )
        return request

    def add(self, messages: Iterable[mesh_chat_pb2.Message], answer: Answer) -> None:
        """Keeps a turn and what was said in answer to it."""
        self._prompt.messages.extend(messages)
        message = answer.message()
        if message is not None:
            self._prompt.messages.append(message)


class Answer:
    """An assistant message as it is put together from chunks."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, mesh_chat_pb2.ToolCall] = {}

    def add(self, chunk: chat_pb2.GenerationChunk) -> None:
        """Takes the next chunk."""
        self._texts.append(chunk.text)
        self._reasoning.append(chunk.reasoning)
        for delta in chunk.tool_calls:
            call = self._calls.setdefault(delta.index, mesh_chat_pb2.ToolCall())
            call.id = call.id or delta.id
            call.name = call.name or delta.name
            call.arguments += delta.arguments

    def message(self) -> mesh_chat_pb2.Message | None:
        """The message so far; None when nothing was said."""
        text, reasoning = "".join(self._texts), "".join(self._reasoning)
        if not text and not self._calls:
            return None
        message = mesh_chat_pb2.Message(
            role=mesh_chat_pb2.ROLE_ASSISTANT,
            content=[mesh_chat_pb2.ContentPart(text=text)] if text else [],
            tool_calls=[self._calls[index] for index in sorted(self._calls)],
        )
        if reasoning:
            message.reasoning = reasoning
        return message
