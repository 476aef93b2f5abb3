"""EmbeddingService: vectors of texts, and scores of pairs."""

from __future__ import annotations

from typing import Any

import grpc

from services.gateway.api.callers import caller_of
from services.gateway.api.deadlines import time_left_s
from services.gateway.relay.encode_relay import EncodeRelay
from services.gateway.requests.encoding import embed_parts, score_parts
from services.mesh.interceptors import current_request_id
from tokenmesh.gateway.v1 import embedding_pb2, embedding_pb2_grpc
from tokenmesh.mesh.v1 import generation_pb2

Context = grpc.aio.ServicerContext[Any, Any]


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Embeds and scores."""

    def __init__(self, relay: EncodeRelay) -> None:
        self._relay = relay

    async def Embed(
        self, request: embedding_pb2.EmbedRequest, context: Context
    ) -> embedding_pb2.EmbedResponse:
        """The vectors of some texts."""
        encoded = await self._relay.embed(
            embed_parts(request, current_request_id()),
            caller=caller_of(context, request.user),
            time_left_s=time_left_s(context),
        )
        response = embedding_pb2.EmbedResponse(
            model=encoded.model, usage=_usage(encoded.prompt_tokens)
        )
        for answer in encoded.answers:
            for embedding in answer.embeddings:
                response.embeddings.add(values=embedding.values)
        return response

    async def Score(
        self, request: embedding_pb2.ScoreRequest, context: Context
    ) -> embedding_pb2.ScoreResponse:
        """The scores of some pairs."""
        encoded = await self._relay.score(
            score_parts(request, current_request_id()),
            operation="score",
            caller=caller_of(context, request.user),
            time_left_s=time_left_s(context),
        )
        return embedding_pb2.ScoreResponse(
            model=encoded.model,
            scores=[score for answer in encoded.answers for score in answer.scores],
            usage=_usage(encoded.prompt_tokens),
        )


def _usage(prompt_tokens: int) -> generation_pb2.Usage:
    return generation_pb2.Usage(prompt_tokens=prompt_tokens)
