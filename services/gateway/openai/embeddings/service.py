"""POST /v1/embeddings, /v1/rerank and /v1/score."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator

from google.api.httpbody_pb2 import HttpBody

from services.gateway.api.callers import caller_of
from services.gateway.api.deadlines import time_left_s
from services.gateway.openai.embeddings.bodies import embedding_bodies, rerank_body, score_body
from services.gateway.openai.embeddings.request import (
    encoding_format,
    read_embedding_request,
    read_rerank_request,
    read_score_request,
)
from services.gateway.openai.embeddings.texts import is_one_input
from services.gateway.openai.failures import JSON, Context, Failures
from services.gateway.openai.spelling import (
    RERANK_SPELLING,
    embedding_spelling,
    score_spelling,
)
from services.gateway.relay.encode_relay import EncodeRelay
from services.gateway.requests.encoding import embed_parts, score_parts
from services.mesh.interceptors import current_request_id
from tokenmesh.openai.v1 import embedding_pb2, embedding_pb2_grpc


class Embeddings(embedding_pb2_grpc.EmbeddingServiceServicer):
    """POST /v1/embeddings, /v1/rerank and /v1/score."""

    def __init__(self, relay: EncodeRelay) -> None:
        self._relay = relay

    def CreateEmbedding(
        self, request: embedding_pb2.CreateEmbeddingRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        """One JSON object, in several bodies where it is large."""
        spelling = embedding_spelling(is_single=is_one_input(request.input))
        failures = Failures(context, "CreateEmbedding", spelling, request.model)
        return failures.guard(self._embed(request, context))

    async def Rerank(self, request: embedding_pb2.RerankRequest, context: Context) -> HttpBody:
        """Documents, the most relevant first."""
        failures = Failures(context, "Rerank", RERANK_SPELLING, request.model)
        try:
            return await self._rerank(request, context)
        except Exception as error:
            await failures.abort(error)

    async def Score(self, request: embedding_pb2.ScoreRequest, context: Context) -> HttpBody:
        """Scores of pairs of texts."""
        spelling = score_spelling(
            first_is_single=is_one_input(request.text_1),
            second_is_single=is_one_input(request.text_2),
        )
        failures = Failures(context, "Score", spelling, request.model)
        try:
            return await self._score(request, context)
        except Exception as error:
            await failures.abort(error)

    async def _embed(
        self, request: embedding_pb2.CreateEmbeddingRequest, context: Context
    ) -> AsyncGenerator[HttpBody, None]:
        asked_format = encoding_format(request)
        typed = await read_embedding_request(request)
        embedded = await self._relay.embed(
            embed_parts(typed, current_request_id()),
            caller=caller_of(context, request.user),
            time_left_s=time_left_s(context),
        )
        for body in embedding_bodies(embedded, asked_format):
            yield HttpBody(content_type=JSON, data=body.encode())
            await asyncio.sleep(0)

    async def _rerank(self, request: embedding_pb2.RerankRequest, context: Context) -> HttpBody:
        typed = read_rerank_request(request)
        scored = await self._relay.score(
            score_parts(typed, current_request_id()),
            operation="rerank",
            caller=caller_of(context, request.user),
            time_left_s=time_left_s(context),
        )
        body = rerank_body(
            f"rerank-{uuid.uuid4().hex}",
            scored,
            typed.documents,
            top_n=request.top_n if request.HasField("top_n") else None,
            return_documents=not request.HasField("return_documents") or request.return_documents,
        )
        return HttpBody(content_type=JSON, data=body.encode())

    async def _score(self, request: embedding_pb2.ScoreRequest, context: Context) -> HttpBody:
        typed = read_score_request(request)
        scored = await self._relay.score(
            score_parts(typed, current_request_id()),
            operation="score",
            caller=caller_of(context, request.user),
            time_left_s=time_left_s(context),
        )
        body = score_body(f"score-{uuid.uuid4().hex}", int(time.time()), scored)
        return HttpBody(content_type=JSON, data=body.encode())
