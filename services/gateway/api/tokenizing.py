"""Tokens without generation: any worker of a model can tell them."""

from __future__ import annotations

from services.gateway.api.forwarding import Forwarding
from services.gateway.requests import chat_prompts
from services.gateway.requests.validation import check_model_name
from services.mesh.errors import InvalidRequestError
from tokenmesh.worker.v1 import worker_pb2


class Tokenizing:
    """Asks a worker of the model. All calls raise MeshError as `Forwarding.call`, and
    InvalidRequestError where the request is wrong; `time_left_s` is how long the client waits.
    """

    def __init__(self, forwarding: Forwarding) -> None:
        self._forwarding = forwarding

    async def tokenize(
        self, request: worker_pb2.TokenizeRequest, time_left_s: float | None
    ) -> worker_pb2.TokenizeResponse:
        """Token ids of a text or a conversation."""
        _check_prompt(request)
        return await self._forwarding.call(request, time_left_s, lambda stub: stub.Tokenize)

    async def detokenize(
        self, request: worker_pb2.DetokenizeRequest, time_left_s: float | None
    ) -> worker_pb2.DetokenizeResponse:
        """Text of token ids."""
        check_model_name(request.model)
        return await self._forwarding.call(request, time_left_s, lambda stub: stub.Detokenize)

    async def count(
        self, request: worker_pb2.CountTokensRequest, time_left_s: float | None
    ) -> worker_pb2.CountTokensResponse:
        """The number of tokens of a text or a conversation."""
        _check_prompt(request)
        return await self._forwarding.call(request, time_left_s, lambda stub: stub.CountTokens)

    async def prompt_tokens(self, start: worker_pb2.Start, time_left_s: float | None) -> list[int]:
        """Token ids of the prompt that a worker is told to start with."""
        kind = start.WhichOneof("prompt")
        if kind == "token_ids":
            return list(start.token_ids.values)
        request = worker_pb2.TokenizeRequest(model=start.model)
        if kind == "chat":
            request.chat.CopyFrom(start.chat)
        else:
            request.text = start.text
        answer = await self.tokenize(request, time_left_s)
        return list(answer.token_ids)


def _check_prompt(request: worker_pb2.TokenizeRequest | worker_pb2.CountTokensRequest) -> None:
    check_model_name(request.model)
    kind = request.WhichOneof("prompt")
    if kind is None:
        raise InvalidRequestError("prompt must be set: chat or text", field="prompt")
    if kind == "chat":
        chat_prompts.check(request.chat, "chat")
