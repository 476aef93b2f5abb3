"""A conversation that the server keeps."""

from __future__ import annotations

from collections.abc import Iterable

from services.gateway.requests import chat_prompts
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

    @property
    def model(self) -> str:
        """The model that it was opened for."""
        return self._opening.model

    @property
    def user(self) -> str:
        """Whom the caller asks for."""
        return self._opening.user

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

    def add(
        self, messages: Iterable[mesh_chat_pb2.Message], answer: mesh_chat_pb2.Message | None
    ) -> None:
        """Keeps a turn and what was said in answer to it, if anything."""
        self._prompt.messages.extend(messages)
        if answer is not None:
            self._prompt.messages.append(answer)
